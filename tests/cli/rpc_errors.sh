run rpc
run rpc coordinator
run rpc coordinator list
run rpc nobody list
run rpc evaluator list
run rpc coordinator assay.v1.Coordinator
run rpc coordinator assay.v1.Coordinator/Nothing
run rpc "ipc://$PWD/nothing" list --deadline-ms 300
run rpc "ipc://$PWD/nothing" describe assay.v1.HealthCheckRequest
run rpc "ipc://$PWD/nothing" describe assay.v1.Nothing
run rpc "ipc://$PWD/nothing" assay.v1.Health/Check '{"service": 1}'
run rpc "ipc://$PWD/nothing" assay.v1.Health/Check '{"service":'
run rpc "ipc://$PWD/nothing" assay.v1.Health/Check -
run rpc "ipc://$PWD/nothing" assay.v1.Health/Check '{}' --attach nothing
run rpc "ipc://$PWD/nothing" assay.v1.Health/Check '{}' --attach ,
run rpc coordinator list --deadline-ms -1

run workers
run jobs --json
run cache stat
run down
run workers --data elsewhere
run workers --coordinator nonsense

run workers
run jobs --json
run down
run workers --data elsewhere
run workers --coordinator nonsense

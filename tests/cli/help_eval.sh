run eval --help
run up --help
run down --help
run workers --help
run jobs --help

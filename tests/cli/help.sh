run --help
run --version
run eval --version
run

run watch --help
run pause --help
run resume --help
run cancel --help
run retry --help
run rm --help

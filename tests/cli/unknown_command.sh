run evla
run wrokers
run compare
run dance

/* Clocks. Decisions use the monotonic one; the wall clock is for humans and logs only. Any thread. */
#pragma once

#include <stdint.h>

int64_t assay_now_ms(void);  /* monotonic */
int64_t assay_now_us(void);  /* monotonic */
int64_t assay_wall_ms(void); /* since 1970, UTC */
int64_t assay_cpu_ms(void);  /* CPU time of this process, all threads */

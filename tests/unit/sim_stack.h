/* Registry and scheduler under simulated time: workers that are fast, slow, fail, fall silent, come back late with
 * answers, and an evaluator that loses records. The same seed gives the same run. */
#pragma once

#include "services/coordinator/registry.h"
#include "services/coordinator/scheduler.h"

#define SIM_MODELS_MAX 4

struct sim_options {
    size_t workers, chunks; /* chunks of all variants together; at least 1000 */
    uint64_t seed;
    bool faults;
    size_t models; /* that a worker holds, at most SIM_MODELS_MAX; the one used longest ago makes room. 0: one */
};

struct sim_result {
    struct assay_scheduler_stats stats;
    size_t chunks;       /* that had to be done */
    uint64_t counted;    /* chunks that Completes were told to be new */
    uint64_t lost;       /* done chunks that the evaluator lost: to be counted again */
    uint64_t regranted;  /* chunks that were lent although they were done: none may be */
    uint64_t miscounted; /* Completes that were told another number of new chunks than there were: none may be */
    size_t missing;      /* chunks that were not done at the end */
    size_t dead;         /* runs with a dead chunk */
    uint64_t silences, late_answers, lost_answers, failures;
    uint64_t registrations;
    uint64_t loads; /* leases of a model that their worker did not have */
    double simulated_s;
    double steps_per_decision; /* a decision: a lease, or none; a chunk lent; a chunk done; a heartbeat */
};

/* False: it did not end within a simulated day, or memory is out. */
bool sim_run(const struct sim_options *options, struct sim_result *ret);

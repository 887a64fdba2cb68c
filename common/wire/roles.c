#include "common/wire/roles.h"

#include <string.h>

#define BIT(role) (1u << ASSAY_ROLE_##role)
#define ALL (BIT(WORKER) | BIT(CLIENT) | BIT(METRIC))

static const char *const names[] = {"none", "worker", "client", "metric", "admin"};

/* Who may call what, besides the admin, who may call everything. "/" at the end: all methods of the service. */
static const struct {
    const char *method;
    unsigned roles;
} table[] = {
    {"assay.v1.Health/", ALL},
    {"assay.v1.Reflection/", ALL},
    {"assay.v1.Trace/Spans", BIT(CLIENT)},
    {"assay.v1.Status/GetStatus", BIT(CLIENT)},
    {"assay.v1.Coordinator/RegisterService", BIT(WORKER) | BIT(METRIC)},
    {"assay.v1.Coordinator/Heartbeat", BIT(WORKER) | BIT(METRIC)},
    {"assay.v1.Coordinator/ListServices", ALL},
    {"assay.v1.Coordinator/WatchDemand", BIT(WORKER)},
    {"assay.v1.Coordinator/SubmitJob", BIT(CLIENT)},
    {"assay.v1.Coordinator/PlanJob", BIT(CLIENT)},
    {"assay.v1.Coordinator/WatchEvents", BIT(CLIENT)},
    {"assay.v1.Coordinator/GetJob", BIT(CLIENT)},
    {"assay.v1.Coordinator/ListJobs", BIT(CLIENT)},
    {"assay.v1.Coordinator/CancelJob", BIT(CLIENT)},
    {"assay.v1.Coordinator/PauseJob", BIT(CLIENT)},
    {"assay.v1.Coordinator/ResumeJob", BIT(CLIENT)},
    {"assay.v1.Coordinator/RetryJob", BIT(CLIENT)},
    {"assay.v1.Coordinator/RemoveJob", BIT(CLIENT)},
    {"assay.v1.Coordinator/WatchShards", 0},
    {"assay.v1.Coordinator/LeaveShards", 0},
    {"assay.v1.Work/Lease", BIT(WORKER)},
    {"assay.v1.Work/Complete", BIT(WORKER)},
    {"assay.v1.Records/Put", BIT(WORKER)},
    {"assay.v1.Records/Have", BIT(WORKER)},
    {"assay.v1.Evaluator/Score", 0}, /* the coordinator, and evaluators for each other: admins all */
    {"assay.v1.Shards/", 0},
    {"assay.v1.Quantizer/Quantize", 0},
    {"assay.v1.Artifacts/", BIT(WORKER)},
    {"assay.v1.Respond/", BIT(CLIENT)},
    {"assay.v1.Cache/Stat", BIT(CLIENT)},
    {"assay.v1.Cache/List", BIT(CLIENT)},
    {"assay.v1.Cache/Verify", BIT(CLIENT)},
    {"assay.v1.Cache/Prune", 0},
};

const char *assay_role_name(enum assay_role role)
{
    return (size_t)role < ASSAY_COUNT(names) ? names[role] : names[ASSAY_ROLE_NONE];
}

bool assay_role_parse(const char *name, enum assay_role *ret)
{
    for (size_t i = ASSAY_ROLE_WORKER; i < ASSAY_COUNT(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *ret = (enum assay_role)i;
            return true;
        }
    }
    return false;
}

/* The row of a method; -1 when it has none. */
static int row_of(const char *method)
{
    for (size_t i = 0; i < ASSAY_COUNT(table); i++) {
        size_t bytes = strlen(table[i].method);
        bool whole_service = table[i].method[bytes - 1] == '/';
        if (whole_service ? strncmp(method, table[i].method, bytes) == 0 : strcmp(method, table[i].method) == 0)
            return (int)i;
    }
    return -1;
}

bool assay_role_may_call(enum assay_role role, const char *method)
{
    if (role == ASSAY_ROLE_ADMIN)
        return true;
    int row = row_of(method);
    return role != ASSAY_ROLE_NONE && row >= 0 && (table[row].roles >> role & 1) != 0;
}

bool assay_role_knows(const char *method)
{
    return row_of(method) >= 0;
}

#include "common/wire/observer.h"

#include <stdatomic.h>

static const struct assay_wire_observer *_Atomic observer_now;

void assay_wire_observe(const struct assay_wire_observer *observer)
{
    atomic_store_explicit(&observer_now, observer, memory_order_release);
}

void assay_wire_began(bool is_server)
{
    const struct assay_wire_observer *observer = atomic_load_explicit(&observer_now, memory_order_acquire);
    if (observer)
        observer->began(observer->arg, is_server);
}

void assay_wire_ended(const struct assay_wire_call *call)
{
    const struct assay_wire_observer *observer = atomic_load_explicit(&observer_now, memory_order_acquire);
    if (observer)
        observer->ended(observer->arg, call);
}

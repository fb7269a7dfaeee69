// Tasks for the threads.

#pragma once

#include <new>

#include "platform.h"

namespace {

// Runs task(index) for every index. An exception must not leave an OpenMP region: it becomes a return code.
template <class Task>
bool parallel(i64 count, int threads, const Task& task) {
    bool ok = true;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1 && count > 1)
    for (i64 i = 0; i < count; ++i) {
        try {
            task(i);
        } catch (const std::bad_alloc&) {
#pragma omp atomic write
            ok = false;
        }
    }
    (void)threads;
    return ok;
}

}  // namespace

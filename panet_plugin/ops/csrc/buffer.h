// Memory that is freed with its owner.

#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "platform.h"

namespace {

struct Free {
    void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float, Free>;

Buffer zeros(i64 count) {
    constexpr i64 alignment = 64;
    float* p = nullptr;
    const i64 bytes = (count * 4 + alignment) / alignment * alignment;
    if (posix_memalign(reinterpret_cast<void**>(&p), alignment, bytes) != 0) throw std::bad_alloc();
    std::memset(p, 0, bytes);
    return Buffer(p);
}

}  // namespace

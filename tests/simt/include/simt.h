#pragma once
// What the emulated CUDA of cuda_runtime.h asks of emulator.cpp.
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>

struct dim3;

namespace simt {

// A line of a kernel. As the default value of a function's last parameter: the line that calls the function.
struct Place {
  const char* file;
  int line;
  explicit Place(const char* own_file = __builtin_FILE(), int own_line = __builtin_LINE())
      : file(own_file), line(own_line) {
  }
};

// Runs a kernel to its end. Where it cannot, take_error() says so.
void run(const dim3& grid, const dim3& block, size_t shared_bytes, const std::function<void()>& kernel);
void enter(const char* kernel); // called at its beginning, by each thread
bool take_error();              // true once for each error
const char* error_text();

// Waits for all threads of the block that have not exited. Returns for how many of them `predicate` is true.
int sync_block(bool predicate, Place place);

// Waits for the lanes in `mask` that have not exited. Returns all their values; those of other lanes are poison.
using Lanes = std::array<uint64_t, 32>;
const Lanes& exchange(unsigned mask, uint64_t value, const char* operation, Place place);

// The number of the calling thread in its warp.
int lane();

} // namespace simt

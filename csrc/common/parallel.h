#pragma once
#include <torch/csrc/stable/ops.h>

#include <cstdint>

namespace pyaction {

// Elements for which waking a thread pays.
constexpr int64_t kGrainElements = 16384;

// Shares `items` of `elements_per_item` elements each among torch's threads. `body(begin, end)` must not throw.
template <typename Body>
void parallel_rows(int64_t items, int64_t elements_per_item, const Body& body) {
  torch::stable::parallel_for(0, items, 1 + kGrainElements / (elements_per_item + 1), body);
}

} // namespace pyaction

#pragma once
#include <torch/csrc/stable/ops.h>

#include <cstdint>

namespace pyaction {

// Shares `items` of `elements_per_item` elements each among torch's threads. A thread gets at least 16,384 elements:
// below that, waking it costs more than it saves. `body(begin, end)` must not throw.
template <typename Body>
void parallel_rows(int64_t items, int64_t elements_per_item, const Body& body) {
  torch::stable::parallel_for(0, items, 1 + 16384 / (elements_per_item + 1), body);
}

} // namespace pyaction

#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "triplet/triplet_math.h"

namespace pyaction {

// Sorts by key, one byte at a time from the lowest up; equal keys keep their order. Several times faster than
// std::sort on a row of distances, whose comparisons no branch predictor can guess. `buffer` is scratch.
template <typename scalar_t>
void radix_sort(std::vector<Neighbour<scalar_t>>& items, std::vector<Neighbour<scalar_t>>& buffer) {
  constexpr int kBytes = sizeof(items[0].key);
  std::array<std::array<uint32_t, 256>, kBytes> counts{};
  for (const Neighbour<scalar_t>& item : items) {
    for (int byte = 0; byte < kBytes; ++byte) {
      ++counts[byte][(item.key >> (8 * byte)) & 255];
    }
  }
  buffer.resize(items.size());
  for (int byte = 0; byte < kBytes && !items.empty(); ++byte) {
    std::array<uint32_t, 256>& place = counts[byte];
    if (place[(items[0].key >> (8 * byte)) & 255] == items.size()) {
      continue; // all items share this byte
    }
    uint32_t before = 0;
    for (uint32_t& entry : place) {
      const uint32_t count = entry;
      entry = before;
      before += count;
    }
    for (const Neighbour<scalar_t>& item : items) {
      buffer[place[(item.key >> (8 * byte)) & 255]++] = item;
    }
    items.swap(buffer);
  }
}

} // namespace pyaction

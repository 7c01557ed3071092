#pragma once
// What CPU and CUDA share: the order of an anchor's references, and the negatives that a positive selects.
#include <stdint.h>
#include <string.h>

#include "common/host_device.h"

namespace pyaction {

// Numbered as in pyaction/ops/triplet.py; batch-hard is not among them, because it has an op of its own. Ties go to the
// lowest index.
enum class Mining : int32_t {
  kHardNegative,    // each positive with the nearest negative
  kSemihard,        // each positive with the negatives that are farther, but by less than the margin
  kSemihardClosest, // each positive with the nearest negative that is farther, else with the farthest negative
  kAll,             // each positive with each negative
};
constexpr int32_t kMinings = 4;

// True where the nearest negative is the only one that can be selected: nothing has to be sorted.
HOST_DEVICE bool needs_nearest_only(Mining mining) {
  return mining == Mining::kHardNegative;
}

template <typename scalar_t>
struct KeyOf;

template <>
struct KeyOf<float> {
  using type = uint32_t;
};

template <>
struct KeyOf<double> {
  using type = uint64_t;
};

// An unsigned integer that is ordered as the distance is. Comparing keys instead of distances makes the order total:
// NaN comes after infinity, and -0 equals 0.
template <typename scalar_t>
HOST_DEVICE typename KeyOf<scalar_t>::type key_of(scalar_t distance) {
  using key_t = typename KeyOf<scalar_t>::type;
  constexpr key_t sign = key_t(1) << (8 * sizeof(key_t) - 1);
  if (distance != distance) {
    return static_cast<key_t>(~key_t(0));
  }
  const scalar_t value = distance == 0 ? scalar_t(0) : distance;
  key_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits & sign ? static_cast<key_t>(~bits) : static_cast<key_t>(bits | sign);
}

// The inverse of key_of.
template <typename scalar_t>
HOST_DEVICE scalar_t distance_of(typename KeyOf<scalar_t>::type key) {
  using key_t = typename KeyOf<scalar_t>::type;
  constexpr key_t sign = key_t(1) << (8 * sizeof(key_t) - 1);
  const key_t bits = key & sign ? static_cast<key_t>(key ^ sign) : static_cast<key_t>(~key);
  scalar_t distance;
  memcpy(&distance, &bits, sizeof(distance));
  return distance;
}

// A reference as its anchor sees it.
template <typename scalar_t>
struct Neighbour {
  typename KeyOf<scalar_t>::type key;
  int32_t index;
};

constexpr int32_t kNoIndex = 0x7fffffff; // larger than any reference's

// Comes after every reference, NaN included.
template <typename scalar_t>
HOST_DEVICE Neighbour<scalar_t> after_all() {
  return {static_cast<typename KeyOf<scalar_t>::type>(-1), kNoIndex};
}

template <typename scalar_t>
HOST_DEVICE bool nearer(const Neighbour<scalar_t>& one, const Neighbour<scalar_t>& other) {
  return one.key < other.key || (one.key == other.key && one.index < other.index);
}

template <typename scalar_t>
HOST_DEVICE bool farther(const Neighbour<scalar_t>& one, const Neighbour<scalar_t>& other) {
  return one.key > other.key || (one.key == other.key && one.index < other.index);
}

// How many of the sorted negatives have a distance below `bound`, or at most `bound` where `inclusive`. A valid count
// whatever comes, NaN included.
template <typename scalar_t>
HOST_DEVICE int32_t count_within(const Neighbour<scalar_t>* negatives, int32_t count, double bound, bool inclusive) {
  int32_t low = 0, high = count;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    const double distance = static_cast<double>(distance_of<scalar_t>(negatives[middle].key));
    if (inclusive ? distance <= bound : distance < bound) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// One positive's negatives: [low, high) are selected, and [low, active_end) of these have a hinge above zero.
struct Selection {
  int32_t low, active_end, high;
};

// `negatives` are sorted; count > 0. Where needs_nearest_only(mining), they are the nearest one alone. Thresholds
// are formed in double, so that a float32 distance and the margin add up without rounding a tie away.
template <typename scalar_t>
HOST_DEVICE Selection select_negatives(Mining mining, const Neighbour<scalar_t>* negatives, int32_t count,
                                       scalar_t positive_distance, double margin) {
  const double distance = static_cast<double>(positive_distance);
  const int32_t violating = count_within(negatives, count, distance + margin, false);
  Selection selection = {0, violating, count};
  if (mining == Mining::kSemihard || mining == Mining::kSemihardClosest) {
    selection.low = count_within(negatives, count, distance, true);
    selection.high = violating;
  }
  if (mining == Mining::kSemihardClosest) {
    if (selection.low == count) { // none is farther: the first of those at the largest distance
      const double largest = static_cast<double>(distance_of<scalar_t>(negatives[count - 1].key));
      selection.low = count_within(negatives, count, largest, false);
    }
    selection.high = selection.low + 1;
  }
  selection.high = selection.high > selection.low ? selection.high : selection.low;
  selection.active_end = violating < selection.high ? violating : selection.high;
  selection.active_end = selection.active_end > selection.low ? selection.active_end : selection.low;
  return selection;
}

// The sum of one positive's hinges. `prefix[i]` is the sum of the nearest i distances.
HOST_DEVICE double sum_hinges(const Selection& selection, const double* prefix, double positive_distance,
                              double margin) {
  const int32_t active = selection.active_end - selection.low;
  if (active == 0) {
    return 0; // not 0 * threshold, which is NaN for an infinite distance
  }
  const double sum = active * (positive_distance + margin) - (prefix[selection.active_end] - prefix[selection.low]);
  return sum > 0 ? sum : 0; // rounding may leave a sum of tiny hinges just below zero
}

} // namespace pyaction

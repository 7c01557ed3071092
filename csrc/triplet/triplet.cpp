// Triplets on the CPU: rows of anchors in parallel. Where sorting dominates, which gains nothing from wider vectors,
// the kernels are here and not in triplet_cpu.cpp.
#include "triplet/triplet.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "common/parallel.h"
#include "common/scratch.h"
#include "triplet/radix_sort.h"
#include "triplet/triplet_entry.h"

namespace pyaction {
namespace {

// One anchor's references, split by label. Lives as long as its thread has rows, to keep the memory.
template <typename scalar_t>
struct AnchorRow {
  std::vector<Neighbour<scalar_t>> positives; // by index
  std::vector<Neighbour<scalar_t>> negatives; // nearest first; the nearest alone where no other is needed
  std::vector<Neighbour<scalar_t>> buffer;
  bool has_nan;

  void read(const TripletArguments<scalar_t>& a, int64_t anchor);
};

// Leaves positives and negatives empty where either is: no triplet then.
template <typename scalar_t>
void AnchorRow<scalar_t>::read(const TripletArguments<scalar_t>& a, int64_t anchor) {
  const scalar_t* distances = a.distances + anchor * a.references;
  const int64_t label = a.anchor_labels[anchor], self = a.exclude_self ? anchor : -1;
  const bool nearest_only = needs_nearest_only(a.mining);
  Neighbour<scalar_t> nearest = after_all<scalar_t>();
  positives.clear();
  negatives.resize(nearest_only ? 1 : a.references);
  int32_t count = 0;
  has_nan = false;
  for (int32_t i = 0; i < a.references; ++i) {
    if (i == self) {
      continue;
    }
    const Neighbour<scalar_t> reference = {key_of(distances[i]), i};
    has_nan |= distances[i] != distances[i];
    if (a.reference_labels[i] == label) {
      positives.push_back(reference);
    } else if (nearest_only) {
      nearest = nearer(reference, nearest) ? reference : nearest;
    } else {
      negatives[count++] = reference;
    }
  }
  if (nearest.index != kNoIndex) {
    negatives[count++] = nearest;
  }
  negatives.resize(positives.empty() ? 0 : count);
  if (negatives.empty()) {
    positives.clear();
  } else if (!nearest_only) {
    radix_sort(negatives, buffer);
  }
}

// Calls body(positive, selection) for each positive of the row.
template <typename scalar_t, typename Body>
void for_each_positive(const TripletArguments<scalar_t>& a, const AnchorRow<scalar_t>& row, Body&& body) {
  for (const Neighbour<scalar_t>& positive : row.positives) {
    body(positive, select_negatives(a.mining, row.negatives.data(), static_cast<int32_t>(row.negatives.size()),
                                    distance_of<scalar_t>(positive.key), a.margin));
  }
}

template <typename scalar_t>
void hinge_rows(const TripletArguments<scalar_t>& a, const HingeResults<scalar_t>& results, int64_t begin,
                int64_t end) {
  AnchorRow<scalar_t> row;
  std::vector<double> prefix;  // prefix[i]: the sum of the nearest i distances
  std::vector<int32_t> change; // change[i]: by how much more positives reach negative i than negative i - 1
  for (int64_t anchor = begin; anchor < end; ++anchor) {
    row.read(a, anchor);
    prefix.resize(row.negatives.size() + 1);
    prefix[0] = 0;
    for (size_t i = 0; i < row.negatives.size(); ++i) {
      prefix[i + 1] = prefix[i] + static_cast<double>(distance_of<scalar_t>(row.negatives[i].key));
    }
    change.assign(row.negatives.size() + 1, 0);
    scalar_t* weights = results.weights + anchor * a.references;
    std::fill(weights, weights + a.references, scalar_t(0));
    double hinge = 0;
    int64_t selected = 0, active = 0;
    for_each_positive(a, row, [&](const Neighbour<scalar_t>& positive, const Selection& s) {
      hinge += sum_hinges(s, prefix.data(), static_cast<double>(distance_of<scalar_t>(positive.key)), a.margin);
      selected += s.high - s.low;
      active += s.active_end - s.low;
      weights[positive.index] = static_cast<scalar_t>(s.active_end - s.low);
      ++change[s.low];
      --change[s.active_end];
    });
    int32_t reached = 0;
    for (size_t i = 0; i < row.negatives.size(); ++i) {
      reached += change[i];
      weights[row.negatives[i].index] = static_cast<scalar_t>(-reached);
    }
    results.hinge[anchor] = row.has_nan ? std::numeric_limits<scalar_t>::quiet_NaN() : static_cast<scalar_t>(hinge);
    results.selected[anchor] = selected;
    results.active[anchor] = active;
  }
}

template <typename scalar_t>
void count_rows(const TripletArguments<scalar_t>& a, int64_t* counts, int64_t begin, int64_t end) {
  AnchorRow<scalar_t> row;
  for (int64_t anchor = begin; anchor < end; ++anchor) {
    row.read(a, anchor);
    counts[anchor] = 0;
    for_each_positive(a, row,
                      [&](const Neighbour<scalar_t>&, const Selection& s) { counts[anchor] += s.high - s.low; });
  }
}

template <typename scalar_t>
void fill_rows(const TripletArguments<scalar_t>& a, const MinedTriplets& triplets, int64_t begin, int64_t end) {
  AnchorRow<scalar_t> row;
  for (int64_t anchor = begin; anchor < end; ++anchor) {
    int64_t place = triplets.offsets[anchor];
    if (place == triplets.offsets[anchor + 1]) {
      continue;
    }
    row.read(a, anchor);
    for_each_positive(a, row, [&](const Neighbour<scalar_t>& positive, const Selection& s) {
      for (int32_t i = s.low; i < s.high; ++i, ++place) {
        triplets.anchors[place] = anchor;
        triplets.positives[place] = positive.index;
        triplets.negatives[place] = row.negatives[i].index;
      }
    });
  }
}

template <typename scalar_t>
int64_t groups_of(const Points<scalar_t>& points) {
  return (points.count + kPackedGroup - 1) / kPackedGroup;
}

const HardestKernels<float>& kernels_for(const HardestArguments<float>&) {
  return select_hardest_float();
}

const HardestKernels<double>& kernels_for(const HardestArguments<double>&) {
  return select_hardest_double();
}

Tensor hardest_pairs_cpu(const Tensor& anchors, const Tensor& references, const Tensor& anchor_labels,
                         const Tensor& reference_labels, bool exclude_self) {
  const auto run = [](const auto& a, auto zero, const Tensor&) {
    using scalar_t = decltype(zero);
    const auto& kernels = kernels_for(a);
    const int64_t dimensions = a.references.dimensions;
    const int64_t own = a.exclude_self ? 0 : kernels.packed_size(a.anchors.count, dimensions);
    const Scratch scratch((own + kernels.packed_size(a.references.count, dimensions)) * sizeof(scalar_t) /
                          sizeof(float));
    scalar_t* packed_anchors = reinterpret_cast<scalar_t*>(scratch.data());
    scalar_t* packed_references = packed_anchors + own;
    const auto pack = [&](const auto& points, scalar_t* packed) {
      parallel_rows(groups_of(points), kPackedGroup * dimensions,
                    [&](int64_t begin, int64_t end) { kernels.pack(points, a.references.values, begin, end, packed); });
    };
    pack(a.references, packed_references);
    if (!a.exclude_self) {
      pack(a.anchors, packed_anchors);
    }
    parallel_rows(groups_of(a.anchors), kPackedGroup * a.references.count * (dimensions + 1),
                  [&](int64_t begin, int64_t end) { kernels.find(a, begin, end, packed_anchors, packed_references); });
  };
  return hardest_pairs_entry(anchors, references, anchor_labels, reference_labels, exclude_self, run);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> triplet_hinge_cpu(const Tensor& distances, const Tensor& anchor_labels,
                                                             const Tensor& reference_labels, int64_t mining,
                                                             double margin, bool exclude_self) {
  return triplet_hinge_entry(distances, anchor_labels, reference_labels, mining, margin, exclude_self,
                             [](const auto& a, const auto& results, const Tensor&) {
                               parallel_rows(a.anchors, a.references,
                                             [&](int64_t begin, int64_t end) { hinge_rows(a, results, begin, end); });
                             });
}

std::tuple<Tensor, Tensor, Tensor> mine_triplets_cpu(const Tensor& distances, const Tensor& anchor_labels,
                                                     const Tensor& reference_labels, int64_t mining, double margin,
                                                     bool exclude_self) {
  const auto count = [](const auto& a, int64_t* offsets, const Tensor&) {
    offsets[0] = 0;
    parallel_rows(a.anchors, a.references, [&](int64_t begin, int64_t end) { count_rows(a, offsets + 1, begin, end); });
    for (int64_t anchor = 0; anchor < a.anchors; ++anchor) {
      offsets[anchor + 1] += offsets[anchor];
    }
    return offsets[a.anchors];
  };
  const auto fill = [](const auto& a, const MinedTriplets& triplets, const Tensor&) {
    parallel_rows(a.anchors, a.references, [&](int64_t begin, int64_t end) { fill_rows(a, triplets, begin, end); });
  };
  return mine_triplets_entry(distances, anchor_labels, reference_labels, mining, margin, exclude_self, count, fill);
}

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CPU, m) {
  m.impl("hardest_pairs", TORCH_BOX(&hardest_pairs_cpu));
  m.impl("triplet_hinge", TORCH_BOX(&triplet_hinge_cpu));
  m.impl("mine_triplets", TORCH_BOX(&mine_triplets_cpu));
}

} // namespace pyaction

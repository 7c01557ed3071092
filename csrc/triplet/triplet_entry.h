#pragma once
// The part of the triplet entries that does not depend on the device: checks, layout, allocation, dtype. The
// callables get the arguments of the kernels and a tensor on their device.
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "common/checks.h"
#include "common/dispatch.h"
#include "triplet/triplet.h"

namespace pyaction {

// One label for each row of `other`, or for each column.
inline void check_labels(const char* op, const char* name, const Tensor& labels, const char* other_name,
                         const Tensor& other, int64_t dim) {
  check_rank(op, name, labels, 1);
  check_size(op, name, labels, 0, other.size(dim));
  STD_TORCH_CHECK(labels.scalar_type() == ScalarType::Long && labels.is_cuda() == other.is_cuda() &&
                      labels.get_device_index() == other.get_device_index(),
                  op, ": ", name, " must be int64 and on the device of ", other_name);
}

// References are indexed with 32 bits, and sorted in lists padded to a power of two.
inline void check_references(const char* op, int64_t references) {
  STD_TORCH_CHECK(references <= (int64_t{1} << 30), op, ": ", references, " references are too many");
}

inline void check_triplets(const char* op, const Tensor& distances, const Tensor& anchor_labels,
                           const Tensor& reference_labels, int64_t mining, bool exclude_self) {
  check_rank(op, "distances", distances, 2);
  check_labels(op, "anchor_labels", anchor_labels, "distances", distances, 0);
  check_labels(op, "reference_labels", reference_labels, "distances", distances, 1);
  STD_TORCH_CHECK(mining >= 0 && mining < kMinings, op, ": mining must be in [0, ", kMinings, "); got ", mining);
  STD_TORCH_CHECK(!exclude_self || distances.size(0) == distances.size(1), op,
                  ": distances must be square where self-pairs are excluded; got [", distances.size(0), ", ",
                  distances.size(1), "]");
  check_references(op, distances.size(1));
}

template <typename scalar_t>
Points<scalar_t> points_of(const Tensor& embeddings, const Tensor& labels) {
  return {embeddings.const_data_ptr<scalar_t>(), labels.const_data_ptr<int64_t>(), embeddings.size(0),
          embeddings.size(1)};
}

// run(arguments, zero, tensor) writes what is chosen. There are anchors and references then.
template <typename Run>
Tensor hardest_pairs_entry(const Tensor& any_anchors, const Tensor& any_references, const Tensor& any_anchor_labels,
                           const Tensor& any_reference_labels, bool exclude_self, Run&& run) {
  const char* op = "hardest_pairs";
  check_rank(op, "anchors", any_anchors, 2);
  check_rank(op, "references", any_references, 2);
  check_alike(op, "references", any_references, any_anchors);
  check_size(op, "references", any_references, 1, any_anchors.size(1));
  check_labels(op, "anchor_labels", any_anchor_labels, "anchors", any_anchors, 0);
  check_labels(op, "reference_labels", any_reference_labels, "references", any_references, 0);
  STD_TORCH_CHECK(!exclude_self || any_anchors.size(0) == any_references.size(0), op,
                  ": there must be as many references as anchors where self-pairs are excluded; got ",
                  any_references.size(0), " and ", any_anchors.size(0));
  check_references(op, any_references.size(0));
  const Tensor anchors = torch::stable::contiguous(any_anchors);
  const Tensor references = exclude_self ? anchors : torch::stable::contiguous(any_references);
  const Tensor anchor_labels = torch::stable::contiguous(any_anchor_labels);
  const Tensor reference_labels = exclude_self ? anchor_labels : torch::stable::contiguous(any_reference_labels);
  const Tensor chosen = torch::stable::new_empty(anchors, {2, anchors.size(0)}, ScalarType::Long);
  dispatch(FullTypes{}, anchors.scalar_type(), op, [&](auto zero) {
    using scalar_t = decltype(zero);
    if (references.size(0) == 0) {
      torch::stable::fill_(chosen, -1);
    } else if (anchors.size(0) > 0) {
      const HardestArguments<scalar_t> arguments = {points_of<scalar_t>(anchors, anchor_labels),
                                                    points_of<scalar_t>(references, reference_labels), exclude_self,
                                                    chosen.mutable_data_ptr<int64_t>()};
      run(arguments, zero, anchors);
    }
  });
  return chosen;
}

// All tensors are contiguous.
template <typename scalar_t>
TripletArguments<scalar_t> triplet_arguments(const Tensor& distances, const Tensor& anchor_labels,
                                             const Tensor& reference_labels, int64_t mining, double margin,
                                             bool exclude_self) {
  TripletArguments<scalar_t> arguments;
  arguments.distances = distances.const_data_ptr<scalar_t>();
  arguments.anchor_labels = anchor_labels.const_data_ptr<int64_t>();
  arguments.reference_labels = reference_labels.const_data_ptr<int64_t>();
  arguments.anchors = distances.size(0);
  arguments.references = static_cast<int32_t>(distances.size(1));
  arguments.mining = static_cast<Mining>(mining);
  arguments.margin = margin;
  arguments.exclude_self = exclude_self;
  return arguments;
}

// run(arguments, results, tensor) writes every element of the results.
template <typename Run>
std::tuple<Tensor, Tensor, Tensor, Tensor> triplet_hinge_entry(const Tensor& any_distances,
                                                               const Tensor& any_anchor_labels,
                                                               const Tensor& any_reference_labels, int64_t mining,
                                                               double margin, bool exclude_self, Run&& run) {
  check_triplets("triplet_hinge", any_distances, any_anchor_labels, any_reference_labels, mining, exclude_self);
  const Tensor distances = torch::stable::contiguous(any_distances);
  const Tensor anchor_labels = torch::stable::contiguous(any_anchor_labels);
  const Tensor reference_labels = torch::stable::contiguous(any_reference_labels);
  const int64_t anchors = distances.size(0);
  const Tensor hinge = torch::stable::new_empty(distances, {anchors});
  const Tensor selected = torch::stable::new_empty(distances, {anchors}, ScalarType::Long);
  const Tensor active = torch::stable::new_empty(distances, {anchors}, ScalarType::Long);
  const Tensor weights = torch::stable::new_empty(distances, distances.sizes());
  dispatch(FullTypes{}, distances.scalar_type(), "triplet_hinge", [&](auto zero) {
    using scalar_t = decltype(zero);
    if (anchors > 0) {
      const HingeResults<scalar_t> results = {hinge.mutable_data_ptr<scalar_t>(), selected.mutable_data_ptr<int64_t>(),
                                              active.mutable_data_ptr<int64_t>(), weights.mutable_data_ptr<scalar_t>()};
      run(triplet_arguments<scalar_t>(distances, anchor_labels, reference_labels, mining, margin, exclude_self),
          results, distances);
    }
  });
  return {hinge, selected, active, weights};
}

// count(arguments, offsets, tensor) writes the offsets [N + 1] and returns the last one, the number of triplets;
// fill(arguments, triplets, tensor) writes the triplets.
template <typename Count, typename Fill>
std::tuple<Tensor, Tensor, Tensor> mine_triplets_entry(const Tensor& any_distances, const Tensor& any_anchor_labels,
                                                       const Tensor& any_reference_labels, int64_t mining,
                                                       double margin, bool exclude_self, Count&& count, Fill&& fill) {
  check_triplets("mine_triplets", any_distances, any_anchor_labels, any_reference_labels, mining, exclude_self);
  const Tensor distances = torch::stable::contiguous(any_distances);
  const Tensor anchor_labels = torch::stable::contiguous(any_anchor_labels);
  const Tensor reference_labels = torch::stable::contiguous(any_reference_labels);
  const Tensor offsets = torch::stable::new_empty(distances, {distances.size(0) + 1}, ScalarType::Long);
  Tensor anchors, positives, negatives;
  dispatch(FullTypes{}, distances.scalar_type(), "mine_triplets", [&](auto zero) {
    using scalar_t = decltype(zero);
    const TripletArguments<scalar_t> arguments =
        triplet_arguments<scalar_t>(distances, anchor_labels, reference_labels, mining, margin, exclude_self);
    const int64_t total =
        distances.numel() > 0 ? count(arguments, offsets.mutable_data_ptr<int64_t>(), distances) : int64_t{0};
    anchors = torch::stable::new_empty(distances, {total}, ScalarType::Long);
    positives = torch::stable::new_empty(distances, {total}, ScalarType::Long);
    negatives = torch::stable::new_empty(distances, {total}, ScalarType::Long);
    if (total > 0) {
      const MinedTriplets triplets = {offsets.const_data_ptr<int64_t>(), anchors.mutable_data_ptr<int64_t>(),
                                      positives.mutable_data_ptr<int64_t>(), negatives.mutable_data_ptr<int64_t>()};
      fill(arguments, triplets, distances);
    }
  });
  return {anchors, positives, negatives};
}

} // namespace pyaction

// Triplets on CUDA: one block of threads for an anchor, but for batch-hard (cuda/hardest.cuh). Every sum has a fixed
// order and only integers are added atomically, so results are the same on every run.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "triplet/cuda/block.cuh"
#include "triplet/cuda/hardest.cuh"
#include "triplet/triplet_entry.h"

namespace pyaction {
namespace {

constexpr size_t kSharedBytes = size_t{1} << 14;    // lists of negatives up to this size are sorted in shared memory
constexpr int64_t kScratchBytes = int64_t{1} << 27; // bounds the blocks in flight, and so the scratch of all of them

// Each block's own part of the device memory that it works in.
template <typename scalar_t>
struct Scratch {
  double* prefix;                 // [blocks, capacity + 1]
  Neighbour<scalar_t>* negatives; // [blocks, capacity], where the list does not fit in shared memory
  int32_t* change;                // [blocks, capacity + 1]
  int64_t capacity;               // a power of two: room for every negative that may have to be sorted
};

// One anchor's references, known to the whole block.
template <typename scalar_t>
struct AnchorRow {
  const Neighbour<scalar_t>* negatives; // nearest first; the nearest alone where no other is needed
  int32_t count;                        // of negatives; 0 where the anchor has no triplet
  bool has_nan;
};

// Bitonic sort by (distance, index), by the whole block. `list` has room for a power of two.
template <typename scalar_t>
__device__ void sort_nearest_first(Neighbour<scalar_t>* list, int32_t count) {
  uint32_t padded = 1;
  while (padded < static_cast<uint32_t>(count)) {
    padded *= 2;
  }
  for (uint32_t i = count + threadIdx.x; i < padded; i += kThreads) {
    list[i] = after_all<scalar_t>();
  }
  __syncthreads();
  for (uint32_t run = 2; run <= padded; run *= 2) {
    for (uint32_t stride = run / 2; stride > 0; stride /= 2) {
      for (uint32_t pair = threadIdx.x; pair < padded / 2; pair += kThreads) {
        const uint32_t first = 2 * (pair - pair % stride) + pair % stride, second = first + stride;
        const Neighbour<scalar_t> one = list[first], other = list[second];
        const bool ascending = (first & run) == 0;
        if (nearer(other, one) == ascending) {
          list[first] = other;
          list[second] = one;
        }
      }
      __syncthreads();
    }
  }
}

template <typename scalar_t>
__device__ bool is_positive(const TripletArguments<scalar_t>& a, int64_t anchor, int32_t reference) {
  return a.reference_labels[reference] == a.anchor_labels[anchor] && !(a.exclude_self && reference == anchor);
}

// Splits the anchor's references by label and puts its negatives in order. Called by the whole block.
template <typename scalar_t>
__device__ AnchorRow<scalar_t> read_row(const TripletArguments<scalar_t>& a, const Scratch<scalar_t>& scratch,
                                        int64_t anchor) {
  constexpr int32_t kSharedNegatives = kSharedBytes / sizeof(Neighbour<scalar_t>);
  __shared__ Neighbour<scalar_t> shared_list[kSharedNegatives];
  __shared__ int32_t negatives;
  Neighbour<scalar_t>* own_list = scratch.negatives + blockIdx.x * scratch.capacity;
  Neighbour<scalar_t>* list = scratch.capacity <= kSharedNegatives ? shared_list : own_list;
  const bool nearest_only = needs_nearest_only(a.mining);
  __syncthreads(); // the previous row has been read
  if (threadIdx.x == 0) {
    negatives = 0;
  }
  __syncthreads();
  bool has_positive = false, has_nan = false;
  Neighbour<scalar_t> nearest = after_all<scalar_t>();
  for (int32_t first = 0; first < a.references; first += kThreads) {
    const int32_t i = first + static_cast<int32_t>(threadIdx.x);
    const bool usable = i < a.references && !(a.exclude_self && i == anchor);
    const scalar_t distance = usable ? a.distances[anchor * a.references + i] : scalar_t(0);
    const bool positive = usable && is_positive(a, anchor, i), negative = usable && !positive;
    const Neighbour<scalar_t> reference = {key_of(distance), i};
    has_positive |= positive;
    has_nan |= distance != distance;
    nearest = negative && nearer(reference, nearest) ? reference : nearest;
    if (!nearest_only) {
      const int32_t place = place_in_list(negative, &negatives); // any order: the sort makes it the same on every run
      if (negative) {
        list[place] = reference;
      }
    }
  }
  has_positive = __syncthreads_or(has_positive);
  has_nan = __syncthreads_or(has_nan);
  AnchorRow<scalar_t> row = {list, has_positive ? negatives : 0, has_nan};
  if (nearest_only) {
    nearest = nearest_of_block(nearest);
    row.count = has_positive && nearest.index != kNoIndex ? 1 : 0;
    if (threadIdx.x == 0) {
      list[0] = nearest;
    }
    __syncthreads();
  } else if (row.count > 0) {
    sort_nearest_first(list, row.count);
  }
  return row;
}

template <typename scalar_t>
__device__ Selection select_for(const TripletArguments<scalar_t>& a, const AnchorRow<scalar_t>& row, int64_t anchor,
                                int32_t positive) {
  return select_negatives(a.mining, row.negatives, row.count, a.distances[anchor * a.references + positive], a.margin);
}

// Sums the nearest 0, 1, ... distances into prefix [count + 1] and clears change [count + 1].
template <typename scalar_t>
__device__ void prepare_sums(const AnchorRow<scalar_t>& row, double* prefix, int32_t* change) {
  const int32_t share = (row.count + kThreads - 1) / kThreads;
  const int32_t begin = min(static_cast<int32_t>(threadIdx.x) * share, row.count), end = min(begin + share, row.count);
  double own = 0, total = 0;
  for (int32_t i = begin; i < end; ++i) {
    own += static_cast<double>(distance_of<scalar_t>(row.negatives[i].key));
  }
  double running = exclusive_scan(own, total);
  for (int32_t i = begin; i < end; ++i) {
    running += static_cast<double>(distance_of<scalar_t>(row.negatives[i].key));
    prefix[i + 1] = running;
    change[i + 1] = 0;
  }
  if (threadIdx.x == 0) {
    prefix[0] = 0;
    change[0] = 0;
  }
  __syncthreads();
}

// change[i] says by how much more positives reach negative i than negative i - 1: writes the negatives' weights.
template <typename scalar_t>
__device__ void weigh_negatives(const AnchorRow<scalar_t>& row, const int32_t* change, scalar_t* weights) {
  const int32_t share = (row.count + kThreads - 1) / kThreads;
  const int32_t begin = min(static_cast<int32_t>(threadIdx.x) * share, row.count), end = min(begin + share, row.count);
  int32_t own = 0, total = 0;
  for (int32_t i = begin; i < end; ++i) {
    own += change[i];
  }
  int32_t reached = exclusive_scan(own, total);
  for (int32_t i = begin; i < end; ++i) {
    reached += change[i];
    weights[row.negatives[i].index] = static_cast<scalar_t>(-reached);
  }
}

// One block: anchors blockIdx.x, blockIdx.x + gridDim.x, ...; one thread: every kThreads-th positive of the anchor.
template <typename scalar_t>
__global__ void triplet_hinge_kernel(TripletArguments<scalar_t> a, Scratch<scalar_t> scratch,
                                     HingeResults<scalar_t> results) {
  double* prefix = scratch.prefix + blockIdx.x * (scratch.capacity + 1);
  int32_t* change = scratch.change + blockIdx.x * (scratch.capacity + 1);
  for (int64_t anchor = blockIdx.x; anchor < a.anchors; anchor += gridDim.x) {
    scalar_t* weights = results.weights + anchor * a.references;
    for (int32_t i = threadIdx.x; i < a.references; i += kThreads) {
      weights[i] = 0;
    }
    const AnchorRow<scalar_t> row = read_row(a, scratch, anchor);
    prepare_sums(row, prefix, change);
    double hinge = 0;
    int64_t selected = 0, active = 0;
    for (int32_t i = threadIdx.x; row.count > 0 && i < a.references; i += kThreads) {
      if (is_positive(a, anchor, i)) {
        const Selection s = select_for(a, row, anchor, i);
        hinge += sum_hinges(s, prefix, static_cast<double>(a.distances[anchor * a.references + i]), a.margin);
        selected += s.high - s.low;
        active += s.active_end - s.low;
        weights[i] = static_cast<scalar_t>(s.active_end - s.low);
        atomicAdd(change + s.low, 1);
        atomicAdd(change + s.active_end, -1);
      }
    }
    __syncthreads();
    weigh_negatives(row, change, weights);
    double total_hinge = 0;
    int64_t total_selected = 0, total_active = 0;
    exclusive_scan(hinge, total_hinge);
    exclusive_scan(selected, total_selected);
    exclusive_scan(active, total_active);
    if (threadIdx.x == 0) {
      results.hinge[anchor] = static_cast<scalar_t>(row.has_nan ? nan("") : total_hinge);
      results.selected[anchor] = total_selected;
      results.active[anchor] = total_active;
    }
  }
}

// One block: as above. Writes the number of triplets of anchor i to offsets[i + 1].
template <typename scalar_t>
__global__ void count_triplets_kernel(TripletArguments<scalar_t> a, Scratch<scalar_t> scratch, int64_t* offsets) {
  for (int64_t anchor = blockIdx.x; anchor < a.anchors; anchor += gridDim.x) {
    const AnchorRow<scalar_t> row = read_row(a, scratch, anchor);
    int64_t selected = 0, total = 0;
    for (int32_t i = threadIdx.x; row.count > 0 && i < a.references; i += kThreads) {
      if (is_positive(a, anchor, i)) {
        const Selection s = select_for(a, row, anchor, i);
        selected += s.high - s.low;
      }
    }
    exclusive_scan(selected, total);
    if (threadIdx.x == 0) {
      offsets[anchor + 1] = total;
    }
  }
}

// One block in all: turns the counts of count_triplets_kernel into offsets, in place.
__global__ void sum_counts_kernel(int64_t* offsets, int64_t anchors) {
  const int64_t share = (anchors + kThreads - 1) / kThreads;
  const int64_t begin = min(threadIdx.x * share, anchors), end = min(begin + share, anchors);
  int64_t own = 0, total = 0;
  for (int64_t i = begin; i < end; ++i) {
    own += offsets[i + 1];
  }
  int64_t running = exclusive_scan(own, total);
  for (int64_t i = begin; i < end; ++i) {
    running += offsets[i + 1];
    offsets[i + 1] = running;
  }
  if (threadIdx.x == 0) {
    offsets[0] = 0;
  }
}

// One block: as above. Takes kThreads references at a time; each positive's negatives are written by all threads.
template <typename scalar_t>
__global__ void fill_triplets_kernel(TripletArguments<scalar_t> a, Scratch<scalar_t> scratch, MinedTriplets triplets) {
  __shared__ Selection selections[kThreads];
  __shared__ int64_t places[kThreads];
  for (int64_t anchor = blockIdx.x; anchor < a.anchors; anchor += gridDim.x) {
    int64_t place = triplets.offsets[anchor];
    if (place == triplets.offsets[anchor + 1]) {
      continue; // for the whole block
    }
    const AnchorRow<scalar_t> row = read_row(a, scratch, anchor);
    for (int32_t first = 0; first < a.references; first += kThreads) {
      const int32_t reference = first + static_cast<int32_t>(threadIdx.x);
      const bool positive = reference < a.references && is_positive(a, anchor, reference);
      const Selection own = positive ? select_for(a, row, anchor, reference) : Selection{0, 0, 0};
      int64_t total = 0;
      const int64_t before = exclusive_scan(static_cast<int64_t>(own.high - own.low), total);
      selections[threadIdx.x] = own;
      places[threadIdx.x] = place + before;
      __syncthreads();
      for (int32_t i = 0; i < kThreads && total > 0; ++i) {
        const Selection s = selections[i];
        for (int32_t j = s.low + static_cast<int32_t>(threadIdx.x); j < s.high; j += kThreads) {
          const int64_t target = places[i] + j - s.low;
          triplets.anchors[target] = anchor;
          triplets.positives[target] = first + i;
          triplets.negatives[target] = row.negatives[j].index;
        }
      }
      place += total;
    }
  }
}

// Launches a kernel with one block for each anchor, or as many blocks as have room for their scratch in kScratchBytes.
template <typename scalar_t, typename Results>
void launch_per_anchor(void (*kernel)(TripletArguments<scalar_t>, Scratch<scalar_t>, Results),
                       const TripletArguments<scalar_t>& a, const Tensor& tensor, Results results) {
  Scratch<scalar_t> scratch;
  scratch.capacity = 1;
  while (!needs_nearest_only(a.mining) && scratch.capacity < a.references) {
    scratch.capacity *= 2;
  }
  const int64_t prefix_bytes = (scratch.capacity + 1) * static_cast<int64_t>(sizeof(double));
  const int64_t negatives_bytes = scratch.capacity * static_cast<int64_t>(sizeof(Neighbour<scalar_t>));
  const int64_t change_bytes = (scratch.capacity + 1) * static_cast<int64_t>(sizeof(int32_t));
  const int64_t block_bytes = prefix_bytes + negatives_bytes + change_bytes;
  const int64_t blocks = std::min(a.anchors, std::max(kScratchBytes / block_bytes, int64_t{1}));
  const Tensor memory = torch::stable::new_empty(tensor, {blocks * block_bytes}, ScalarType::Byte);
  uint8_t* bytes = memory.mutable_data_ptr<uint8_t>();
  // The largest alignment first.
  scratch.prefix = reinterpret_cast<double*>(bytes);
  scratch.negatives = reinterpret_cast<Neighbour<scalar_t>*>(bytes + blocks * prefix_bytes);
  scratch.change = reinterpret_cast<int32_t*>(bytes + blocks * (prefix_bytes + negatives_bytes));
  launch(kernel, blocks_for(blocks, 1), kThreads, current_stream(tensor), a, scratch, results);
}

Tensor hardest_pairs_cuda(const Tensor& anchors, const Tensor& references, const Tensor& anchor_labels,
                          const Tensor& reference_labels, bool exclude_self) {
  const torch::stable::accelerator::DeviceGuard guard(anchors.get_device_index());
  const auto run = [](const auto& a, auto zero, const Tensor& tensor) {
    using Found = Neighbour<decltype(zero)>;
    const int64_t anchor_tiles = blocks_for(a.anchors.count, kTile);
    const int64_t reference_tiles = blocks_for(a.references.count, kTile);
    const int64_t shares = std::min(reference_tiles, (kBlocksWanted + anchor_tiles - 1) / anchor_tiles);
    const int64_t bytes = shares * a.anchors.count * static_cast<int64_t>(sizeof(Found));
    const Tensor memory = torch::stable::new_empty(tensor, {2 * bytes}, ScalarType::Byte);
    uint8_t* positives = memory.mutable_data_ptr<uint8_t>();
    const HardestOfShares<decltype(zero)> results = {
        reinterpret_cast<Found*>(positives), reinterpret_cast<Found*>(positives + bytes), static_cast<int32_t>(shares)};
    const cudaStream_t stream = current_stream(tensor);
    const dim3 grid(static_cast<unsigned>(anchor_tiles), static_cast<unsigned>(shares));
    launch(hardest_tiles_kernel<decltype(zero)>, grid, kThreads, stream, a, results);
    launch(merge_shares_kernel<decltype(zero)>, blocks_for(a.anchors.count, kThreads), kThreads, stream, a, results);
  };
  return hardest_pairs_entry(anchors, references, anchor_labels, reference_labels, exclude_self, run);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> triplet_hinge_cuda(const Tensor& distances, const Tensor& anchor_labels,
                                                              const Tensor& reference_labels, int64_t mining,
                                                              double margin, bool exclude_self) {
  const torch::stable::accelerator::DeviceGuard guard(distances.get_device_index());
  return triplet_hinge_entry(distances, anchor_labels, reference_labels, mining, margin, exclude_self,
                             [](const auto& a, const auto& results, const Tensor& tensor) {
                               launch_per_anchor(triplet_hinge_kernel, a, tensor, results);
                             });
}

// Waits for the device once: the size of the results depends on what it finds.
std::tuple<Tensor, Tensor, Tensor> mine_triplets_cuda(const Tensor& distances, const Tensor& anchor_labels,
                                                      const Tensor& reference_labels, int64_t mining, double margin,
                                                      bool exclude_self) {
  const torch::stable::accelerator::DeviceGuard guard(distances.get_device_index());
  const auto count = [](const auto& a, int64_t* offsets, const Tensor& tensor) {
    launch_per_anchor(count_triplets_kernel, a, tensor, offsets);
    const cudaStream_t stream = current_stream(tensor);
    launch(sum_counts_kernel, 1, kThreads, stream, offsets, a.anchors);
    int64_t total = 0;
    check_cuda(cudaMemcpyAsync(&total, offsets + a.anchors, sizeof(total), cudaMemcpyDeviceToHost, stream),
               "reading the number of triplets");
    check_cuda(cudaStreamSynchronize(stream), "mining triplets");
    return total;
  };
  const auto fill = [](const auto& a, const MinedTriplets& triplets, const Tensor& tensor) {
    launch_per_anchor(fill_triplets_kernel, a, tensor, triplets);
  };
  return mine_triplets_entry(distances, anchor_labels, reference_labels, mining, margin, exclude_self, count, fill);
}

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CUDA, m) {
  m.impl("hardest_pairs", TORCH_BOX(&hardest_pairs_cuda));
  m.impl("triplet_hinge", TORCH_BOX(&triplet_hinge_cuda));
  m.impl("mine_triplets", TORCH_BOX(&mine_triplets_cuda));
}

} // namespace pyaction

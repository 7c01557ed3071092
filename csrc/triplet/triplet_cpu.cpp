// Batch-hard on the CPU, compiled once per instruction set (common/simd.h). A matrix product whose tiles are looked
// through while they are in registers: the matrix itself is never stored. The other minings sort (triplet.cpp), which
// gains nothing from wider vectors.
#include "common/host_device.h"
#include "triplet/triplet.h"

namespace pyaction {
namespace PYACTION_SIMD_LEVEL {
namespace {

// A tile is kRows anchors by kPanel references. Its sums take kRows * 2 registers: of 32, or of 16.
constexpr int kRows = kVectorBytes == 64 ? 8 : 4;
constexpr int kVectors = 2;
constexpr int kGroup = kPackedGroup; // anchors that a panel of references is used for while the L1 cache holds it

template <typename scalar_t>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(scalar_t));

template <typename scalar_t>
constexpr int kPanel = kVectors * kLanes<scalar_t>; // points side by side; divides kGroup

// One register of coordinates, and one of the signed integers of the same width.
template <typename scalar_t>
struct Lanes;

template <>
struct Lanes<float> {
  using Integer = int32_t;
  typedef float Scalars __attribute__((vector_size(kVectorBytes), may_alias));
  typedef int32_t Integers __attribute__((vector_size(kVectorBytes), may_alias));
};

template <>
struct Lanes<double> {
  using Integer = int64_t;
  typedef double Scalars __attribute__((vector_size(kVectorBytes), may_alias));
  typedef int64_t Integers __attribute__((vector_size(kVectorBytes), may_alias));
};

template <typename scalar_t>
using Scalars = typename Lanes<scalar_t>::Scalars;
template <typename scalar_t>
using Integers = typename Lanes<scalar_t>::Integers;
template <typename scalar_t>
using Integer = typename Lanes<scalar_t>::Integer;

template <typename scalar_t>
constexpr Integer<scalar_t> kLowest = static_cast<Integer<scalar_t>>(uint64_t{1} << (8 * sizeof(scalar_t) - 1));

// kPanel points are packed as rows of kPanel elements: D coordinates, the squared norm, and the two halves of the label
// (bits of integers). What is beyond the last point is 0.
int64_t packed_rows(int64_t dimensions) {
  return dimensions + 3;
}

template <typename scalar_t>
int64_t packed_size(int64_t points, int64_t dimensions) {
  return (points + kGroup - 1) / kGroup * kGroup * packed_rows(dimensions);
}

template <typename scalar_t>
void pack_panel(const Points<scalar_t>& points, const scalar_t* origin, int64_t first, scalar_t* panel) {
  constexpr int width = kPanel<scalar_t>;
  const int64_t dimensions = points.dimensions;
  const int64_t left = points.count - first;
  const int count = static_cast<int>(left < 0 ? 0 : left < width ? left : width);
  scalar_t* norms = panel + dimensions * width;
  Integer<scalar_t>* labels = reinterpret_cast<Integer<scalar_t>*>(norms + width);
  for (int i = 0; i < width; ++i) {
    const scalar_t* point = points.values + (first + i) * dimensions;
    for (int64_t d = 0; d < dimensions; ++d) {
      panel[d * width + i] = i < count ? point[d] - origin[d] : scalar_t(0);
    }
    const int64_t label = i < count ? points.labels[first + i] : 0;
    labels[i] = static_cast<int32_t>(label);
    labels[width + i] = static_cast<int32_t>(label >> 32);
    norms[i] = 0;
  }
  for (int64_t d = 0; d < dimensions; ++d) {
    for (int i = 0; i < width; ++i) {
      norms[i] += panel[d * width + i] * panel[d * width + i];
    }
  }
}

template <typename scalar_t>
void pack(const Points<scalar_t>& points, const scalar_t* origin, int64_t begin, int64_t end, scalar_t* packed) {
  for (int64_t first = begin * kGroup; first < end * kGroup; first += kPanel<scalar_t>) {
    pack_panel(points, origin, first, packed + first * packed_rows(points.dimensions));
  }
}

// products[i][v]: anchor i of the tile by the references of vector v.
template <typename scalar_t>
inline __attribute__((always_inline)) void multiply(const scalar_t* anchors, const scalar_t* panel, int64_t dimensions,
                                                    Scalars<scalar_t> (&products)[kRows][kVectors]) {
  UNROLL
  for (int i = 0; i < kRows; ++i) {
    UNROLL
    for (int v = 0; v < kVectors; ++v) {
      products[i][v] = Scalars<scalar_t>{};
    }
  }
  for (int64_t d = 0; d < dimensions; ++d) {
    const Scalars<scalar_t>* row = reinterpret_cast<const Scalars<scalar_t>*>(panel + d * kPanel<scalar_t>);
    UNROLL
    for (int i = 0; i < kRows; ++i) {
      const scalar_t coordinate = anchors[d * kPanel<scalar_t> + i];
      UNROLL
      for (int v = 0; v < kVectors; ++v) {
        products[i][v] += coordinate * row[v];
      }
    }
  }
}

// The hardest reference of each lane so far. The first of equals, because later ones have to be harder.
template <typename scalar_t>
struct Hardest {
  Integers<scalar_t> key, index;

  inline __attribute__((always_inline)) void offer(Integers<scalar_t> new_key, Integers<scalar_t> new_index) {
    const Integers<scalar_t> harder = new_key > key;
    key = harder ? new_key : key;
    index = harder ? new_index : index;
  }

  int64_t best() const {
    int best = 0;
    for (int lane = 1; lane < kLanes<scalar_t>; ++lane) {
      const bool harder = key[lane] > key[best] || (key[lane] == key[best] && index[lane] < index[best]);
      best = harder ? lane : best;
    }
    return key[best] == kLowest<scalar_t> ? -1 : index[best];
  }
};

template <typename scalar_t>
struct HardestOfAnchor {
  Hardest<scalar_t> positive, negative;
};

// As key_of in triplet_math.h, but signed: no number has the lowest key, and NaN has the highest.
template <typename scalar_t>
inline __attribute__((always_inline)) Integers<scalar_t> keys_of(Scalars<scalar_t> hardness) {
  constexpr int bits = 8 * sizeof(scalar_t) - 1;
  const Integers<scalar_t> raw = reinterpret_cast<const Integers<scalar_t>&>(hardness);
  const Integers<scalar_t> key = raw ^ ((raw >> bits) & ~kLowest<scalar_t>);
  return hardness == hardness ? key : ~kLowest<scalar_t> - Integers<scalar_t>{};
}

// Offers the references of one panel to the anchors [first, first + kRows) of a packed panel.
template <typename scalar_t>
inline __attribute__((always_inline)) void look_through(const HardestArguments<scalar_t>& a,
                                                        const scalar_t* anchor_panel, int row,
                                                        const scalar_t* reference_panel, int64_t first_reference,
                                                        int64_t first_anchor, HardestOfAnchor<scalar_t>* hardest) {
  constexpr int width = kPanel<scalar_t>;
  const int64_t dimensions = a.references.dimensions;
  Scalars<scalar_t> products[kRows][kVectors];
  multiply(anchor_panel + row, reference_panel, dimensions, products);
  const Integer<scalar_t>* anchor_labels =
      reinterpret_cast<const Integer<scalar_t>*>(anchor_panel + (dimensions + 1) * width);
  const Scalars<scalar_t>* norms = reinterpret_cast<const Scalars<scalar_t>*>(reference_panel + dimensions * width);
  const Integers<scalar_t>* labels = reinterpret_cast<const Integers<scalar_t>*>(norms + kVectors);
  UNROLL
  for (int i = 0; i < kRows; ++i) {
    const Integer<scalar_t> low = anchor_labels[row + i], high = anchor_labels[width + row + i];
    const auto self = static_cast<Integer<scalar_t>>(a.exclude_self ? first_anchor + i : -1);
    UNROLL
    for (int v = 0; v < kVectors; ++v) {
      Integers<scalar_t> index;
      for (int lane = 0; lane < kLanes<scalar_t>; ++lane) {
        index[lane] = static_cast<Integer<scalar_t>>(first_reference + v * kLanes<scalar_t> + lane);
      }
      const Scalars<scalar_t> score = norms[v] - scalar_t(2) * products[i][v];
      const Integers<scalar_t> same = (labels[v] == low) & (labels[kVectors + v] == high);
      const Integers<scalar_t> usable = (index < static_cast<Integer<scalar_t>>(a.references.count)) & (index != self);
      const Integers<scalar_t> none = kLowest<scalar_t> - Integers<scalar_t>{};
      const Integers<scalar_t> key = usable ? keys_of<scalar_t>(same ? score : -score) : none;
      hardest[i].positive.offer(same ? key : none, index);
      hardest[i].negative.offer(same ? none : key, index);
    }
  }
}

template <typename scalar_t>
void find(const HardestArguments<scalar_t>& a, int64_t begin, int64_t end, const scalar_t* packed_anchors,
          const scalar_t* packed_references) {
  constexpr int width = kPanel<scalar_t>;
  const int64_t rows = packed_rows(a.references.dimensions);
  HardestOfAnchor<scalar_t> hardest[kGroup];
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first_anchor = group * kGroup;
    const int64_t left = a.anchors.count - first_anchor;
    const int anchors = static_cast<int>(left < kGroup ? left : kGroup);
    const Integers<scalar_t> none = kLowest<scalar_t> - Integers<scalar_t>{};
    for (int i = 0; i < kGroup; ++i) {
      hardest[i] = {{none, none}, {none, none}};
    }
    for (int64_t reference = 0; reference < a.references.count; reference += width) {
      for (int i = 0; i < anchors; i += kRows) {
        look_through(a, packed_anchors + (first_anchor + i / width * width) * rows, i % width,
                     packed_references + reference * rows, reference, first_anchor + i, hardest + i);
      }
    }
    for (int i = 0; i < anchors; ++i) {
      a.chosen[first_anchor + i] = hardest[i].positive.best();
      a.chosen[a.anchors.count + first_anchor + i] = hardest[i].negative.best();
    }
  }
}

} // namespace

extern const HardestKernels<float> hardest_float = {packed_size<float>, pack<float>, find<float>};
extern const HardestKernels<double> hardest_double = {packed_size<double>, pack<double>, find<double>};

} // namespace PYACTION_SIMD_LEVEL
} // namespace pyaction

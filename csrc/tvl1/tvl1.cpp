#include "tvl1/tvl1.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>

#include "common/scratch.h"
#include "common/thread_team.h"
#include "tvl1/tvl1_entry.h"

namespace pyaction {
namespace {

// Of a frame, for which another thread pays: it waits for the others at every step.
constexpr int64_t kTeamPixels = 4096;

struct Cpu {
  static int64_t state_size(const Tvl1Batch& batch, const Tvl1Params& params) {
    return select_tvl1_kernels().state_size(batch.height, batch.width, params);
  }

  // One team of threads per sequence; each takes the next that nobody has begun.
  static void run(const Tvl1Batch& batch, const Tvl1Params& params, const Tensor* state) {
    const Tvl1Kernels& kernels = select_tvl1_kernels();
    const int64_t own_state = kernels.state_size(batch.height, batch.width, params);
    const int64_t memory_size = kernels.workspace_size(batch.height, batch.width, params) + (state ? 0 : own_state);
    const int64_t teams = std::min<int64_t>(batch.sequences, torch::stable::get_num_threads());
    const Scratch memory(teams * memory_size); // before the threads: they must not throw
    const int64_t pixels = int64_t{batch.height} * batch.width;
    std::atomic<int64_t> next{0};
    run_teams(teams, 1 + pixels / kTeamPixels, [&](Team& team, int64_t number) {
      float* workspace = memory.data() + number * memory_size;
      for (int64_t n = next++; n < batch.sequences; n = next++) {
        float* kept = state ? state->mutable_data_ptr<float>() + n * own_state : workspace + memory_size - own_state;
        for (int64_t t = 0; t < batch.frames(); ++t) {
          kernels.push(step_at(batch, n, t), params, kept, workspace, team);
        }
      }
    });
  }

 private:
  static Tvl1Step step_at(const Tvl1Batch& batch, int64_t n, int64_t t) {
    return {{batch.frame[t] + n * batch.frame_stride, batch.type, batch.channels},
            batch.height,
            batch.width,
            batch.first_index + t,
            batch.initial_flow ? batch.initial_flow->const_data_ptr<float>() + n * batch.flow_size() : nullptr,
            batch.flow_at(n, t),
            batch.last && t + 1 == batch.frames()};
  }
};

} // namespace

STABLE_TORCH_LIBRARY_IMPL(pyaction, CPU, m) {
  m.impl("tvl1_flow", TORCH_BOX(&Tvl1Entries<Cpu>::flow));
  m.impl("tvl1_flow_clip", TORCH_BOX(&Tvl1Entries<Cpu>::flow_clip));
  m.impl("tvl1_begin", TORCH_BOX(&Tvl1Entries<Cpu>::begin));
  m.impl("tvl1_next", TORCH_BOX(&Tvl1Entries<Cpu>::next));
}

} // namespace pyaction

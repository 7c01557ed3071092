#pragma once
// Teams of torch's threads. parallel_for may run its chunks on fewer threads than asked for, even one after the other
// on one thread, so nobody ever waits for a thread that may never come: whoever arrives first leads, and does alone
// what nobody helps with.
#include <torch/csrc/stable/ops.h>

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "common/team.h"

namespace pyaction {

class ThreadTeam : public Team {
 public:
  ThreadTeam() : Team{1, &ThreadTeam::run_stage} {
  }

  void set_size(int threads) {
    size = threads;
  }

  // Runs `work(team)` once, on the thread that arrives first; the others help until it is done.
  template <typename Work>
  void join(const Work& work) {
    if (!led_.exchange(true)) {
      const Finish finish{finished_}; // also where something is thrown: nobody waits for ever
      work(*this);
      return;
    }
    while (!finished_.load(std::memory_order_acquire)) {
      if (!help()) {
        wait();
      }
    }
  }

 private:
  struct Finish {
    std::atomic<bool>& finished;

    ~Finish() {
      finished.store(true, std::memory_order_release);
    }
  };

  // One word, so that it changes at once: which stage it is, how many chunks it has, and which is next.
  static constexpr int kChunkBits = 20;
  static constexpr uint64_t kChunkMask = (uint64_t{1} << kChunkBits) - 1;

  static void run_stage(Team& team, int chunks, void (*chunk)(const void*, int), const void* body) {
    ThreadTeam& self = static_cast<ThreadTeam&>(team);
    self.chunk_ = chunk;
    self.body_ = body;
    self.done_.store(0, std::memory_order_relaxed);
    ++self.stage_;
    self.ticket_.store(self.stage_ << 2 * kChunkBits | static_cast<uint64_t>(chunks) << kChunkBits,
                       std::memory_order_release);
    while (self.help()) {
    }
    while (self.done_.load(std::memory_order_acquire) < chunks) {
      wait();
    }
  }

  // Does the next chunk; false if there is none.
  bool help() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    do {
      if ((ticket & kChunkMask) >= (ticket >> kChunkBits & kChunkMask)) {
        return false;
      }
    } while (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire));
    // The stage cannot end, and so chunk_ and body_ cannot change, before this chunk is done.
    chunk_(body_, static_cast<int>(ticket & kChunkMask));
    done_.fetch_add(1, std::memory_order_release);
    return true;
  }

  // Stages follow each other within microseconds; a thread that has waited for longer lets others have its core.
  static void wait() {
    static thread_local int waits = 0;
    if (++waits % 64 == 0) {
      sched_yield();
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  std::atomic<bool> led_{false}, finished_{false};
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int> done_{0};
  uint64_t stage_ = 0;
  void (*chunk_)(const void*, int) = nullptr;
  const void* body_ = nullptr;
};

// Shares torch's threads among `teams` teams of at most `largest`, and calls work(team, number of the team) once per
// team. `work` must not throw.
template <typename Work>
void run_teams(int64_t teams, int64_t largest, const Work& work) {
  const int64_t fair = torch::stable::get_num_threads() / teams,
                per_team = std::max<int64_t>(1, std::min(fair, largest));
  std::vector<ThreadTeam> all(teams);
  for (ThreadTeam& team : all) {
    team.set_size(static_cast<int>(per_team));
  }
  torch::stable::parallel_for(0, teams * per_team, 1, [&](int64_t begin, int64_t end) {
    for (int64_t member = begin; member < end; ++member) {
      const int64_t number = member % teams;
      all[number].join([&](Team& team) { work(team, number); });
    }
  });
}

} // namespace pyaction

// How many pixel-iterations per second the processor can do if nothing but the arithmetic takes time: TV-L1 on a ring
// of a few vectors, which stay in registers and the nearest cache. Each vector is the left and upper neighbour of
// others, so the steps are the kernels' own, neighbours included; only images, rows and shuffles are missing.
//
// usage: ceiling <threads> <vectors> <seconds>; prints the rate. Vectors: how many are worked on at once, an even
// number from 2 to 16; with few the processor waits for results, with many it waits for the cache.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "common/vec.h"
#include "tvl1/tvl1_math.h"

namespace {

using namespace pyaction;
using namespace pyaction::PYACTION_SIMD_LEVEL;
using Clock = std::chrono::steady_clock;

constexpr int kBurst = 20000; // iterations between two looks at the clock

template <int vectors>
struct Ring {
  Vec u1[vectors], u2[vectors], p11[vectors], p12[vectors], p21[vectors], p22[vectors];
  Vec wx[vectors], wy[vectors], constant[vectors], norm[vectors];

  Ring() {
    for (int i = 0; i < vectors; ++i) {
      u1[i] = u2[i] = p11[i] = p12[i] = p21[i] = p22[i] = Vec(0.0f);
      wx[i] = counting() * Vec(0.7f) - Vec(3.0f + i);
      wy[i] = Vec(5.0f - 2 * i) - counting() * Vec(0.3f);
      constant[i] = counting() - Vec(4.0f * i);
      norm[i] = data_norm<false>(wx[i], wy[i]);
    }
  }

  void iterate(int count) {
    const Vec theta(0.3f), limit(0.06f), ratio(0.25f / 0.3f);
    Ring r = *this;
    for (int iteration = 0; iteration < count; ++iteration) {
      UNROLL
      for (int i = 0; i < vectors; ++i) {
        const int before = (i + vectors - 1) % vectors;
        const Vec divergence1 = (r.p11[i] - r.p11[before]) + (r.p12[i] - r.p12[before]);
        const Vec divergence2 = (r.p21[i] - r.p21[before]) + (r.p22[i] - r.p22[before]);
        primal_step<false>(r.u1[i], r.u2[i], r.wx[i], r.wy[i], r.constant[i], r.norm[i], divergence1, divergence2,
                           limit, theta);
      }
      UNROLL
      for (int i = 0; i < vectors; ++i) {
        const int right = (i + 1) % vectors, below = (i + vectors / 2 + 1) % vectors;
        const auto step =
            begin_dual_step<false>(r.p11[i], r.p12[i], r.p21[i], r.p22[i], r.u1[right] - r.u1[i], r.u1[below] - r.u1[i],
                                   r.u2[right] - r.u2[i], r.u2[below] - r.u2[i], ratio);
        end_dual_step<false>(step, r.p11[i], r.p12[i], r.p21[i], r.p22[i], ratio);
      }
    }
    *this = r;
  }
};

// Pixel-iterations per second of one thread, which runs until `end`.
template <int vectors>
double run(Clock::time_point start, Clock::time_point end) {
  Ring<vectors> ring;
  std::this_thread::sleep_until(start);
  int64_t iterations = 0;
  const Clock::time_point begin = Clock::now();
  Clock::time_point now;
  do {
    ring.iterate(kBurst);
    iterations += kBurst;
    now = Clock::now();
  } while (now < end);
  volatile float result = sum_of(ring.u1[0] + ring.u2[0]); // somebody wants to know
  (void)result;
  return static_cast<double>(iterations) * vectors * kLanes / std::chrono::duration<double>(now - begin).count();
}

using Run = double (*)(Clock::time_point, Clock::time_point);
constexpr Run kRuns[] = {run<2>, run<4>, run<6>, run<8>, run<10>, run<12>, run<14>, run<16>};

} // namespace

int main(int argc, char** argv) {
  const int threads = argc == 4 ? std::atoi(argv[1]) : 0, vectors = argc == 4 ? std::atoi(argv[2]) : 0;
  if (threads < 1 || vectors < 2 || vectors > 16 || vectors % 2 != 0) {
    std::fprintf(stderr, "usage: ceiling <threads> <vectors: 2, 4 .. 16> <seconds>\n");
    return 2;
  }
  const Clock::time_point start = Clock::now() + std::chrono::milliseconds(5);
  const auto length = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::atof(argv[3])));
  std::vector<double> rates(threads);
  std::vector<std::thread> team;
  for (double& rate : rates) {
    team.emplace_back([&rate, start, length, vectors] { rate = kRuns[vectors / 2 - 1](start, start + length); });
  }
  double sum = 0;
  for (int i = 0; i < threads; ++i) {
    team[i].join();
    sum += rates[i];
  }
  std::printf("%.6g\n", sum);
  return 0;
}

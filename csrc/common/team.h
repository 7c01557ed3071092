#pragma once
// Threads that work on one thing together, as kernels see them. Host code makes the teams (common/thread_team.h).

#include "common/host_device.h"

namespace pyaction {

struct Team {
  int size; // threads, the calling one included

  // Calls chunk(body, index) for every index in [0, chunks), shared among the threads; returns when all are done.
  void (*run)(Team& team, int chunks, void (*chunk)(const void* body, int index), const void* body);
};

// Calls body(index) for every index in [0, chunks).
template <typename Body>
HOST_DEVICE void share(Team& team, int chunks, const Body& body) {
  if (chunks == 1 || team.size == 1) {
    for (int index = 0; index < chunks; ++index) {
      body(index);
    }
    return;
  }
  team.run(team, chunks, [](const void* shared, int index) { (*static_cast<const Body*>(shared))(index); }, &body);
}

// First row of band `index` of `bands` nearly equal ones; band `bands` begins behind the last row.
HOST_DEVICE int band_start(int height, int bands, int index) {
  return static_cast<int>(static_cast<long long>(height) * index / bands);
}

// Calls body(begin, end) for bands of rows that together are [0, height). Bands shorter than `shortest` would cost
// more in waiting than they win.
template <typename Body>
HOST_DEVICE void share_rows(Team& team, int height, const Body& body, int shortest = 8) {
  const int most = height / shortest, bands = most < 1 ? 1 : most < team.size ? most : team.size;
  share(team, bands, [&](int index) { body(band_start(height, bands, index), band_start(height, bands, index + 1)); });
}

} // namespace pyaction

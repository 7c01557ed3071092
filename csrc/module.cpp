// The Python module pyaction._C: facts about this build. Importing it registers the ops of library.cpp, so
// torch must be imported first.
#include <pybind11/pybind11.h>

#include "common/simd.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "pyaction's kernels; importing this module registers torch.ops.pyaction.*";
  m.def(
      "build_facts",
      [] {
        py::dict facts;
        facts["version"] = PYACTION_VERSION;
        facts["torch_target"] = PYACTION_TORCH_TARGET;
        facts["torch_built"] = PYACTION_TORCH_BUILT;
        facts["compiler"] = "g++ " __VERSION__;
        facts["cuda_version"] = PYACTION_CUDA_VERSION;
        facts["cuda_architectures"] = PYACTION_CUDA_ARCHITECTURES;
        facts["simd_levels"] = PYACTION_SIMD_LEVELS;
        return facts;
      },
      "What this binary was compiled from and for, as strings; lists are separated by spaces.");
  m.def(
      "simd_level", [] { return pyaction::simd_level_name(pyaction::simd_level()); },
      "The instruction set whose CPU kernels run: 'baseline', 'avx2' or 'avx512' (PYACTION_SIMD lowers it).");
}

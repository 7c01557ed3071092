// Every op of pyaction, on one page. Schema floats are C++ doubles and ints are int64_t; strings never cross
// this boundary (Python maps names to bools and ints). Shapes and meanings: the header of each op.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(pyaction, m) {
  // Optical flow: frames [N, 1 or 3, H, W] -> flow [N, 2, H, W]                                   tvl1/tvl1.h
  m.def(
      "tvl1_flow(Tensor frame0, Tensor frame1, Tensor? initial_flow, float tau, float attachment, float theta, "
      "int scales, float scale_step, int warps, int outer_iterations, int inner_iterations, float epsilon, "
      "int median_size, bool opencv_rounding) -> Tensor");

  // Bilinear warping: image [N, C, H, W], flow [N, 2, H, W] -> [N, C, H, W]                       warp/warp.h
  m.def("warp(Tensor image, Tensor flow, bool border) -> Tensor");
  m.def("warp_grad_flow(Tensor grad, Tensor image, Tensor flow, bool border) -> Tensor");
  m.def("warp_grad_image(Tensor grad, Tensor flow, bool border) -> Tensor");

  // Structural similarity: images [N, C, H, W] -> map [N, C, h, w]                                ssim/ssim.h
  m.def("ssim(Tensor image0, Tensor image1, int window, int stride, bool gaussian, float c1, float c2) -> Tensor");
  m.def(
      "ssim_grad(Tensor grad, Tensor image0, Tensor image1, int window, int stride, bool gaussian, float c1, "
      "float c2) -> (Tensor, Tensor)");

  // Triplets, from distances [N, M] and labels [N], [M]                                     triplet/triplet.h
  m.def(
      "triplet_hinge(Tensor distances, Tensor anchor_labels, Tensor reference_labels, int mining, float margin, "
      "bool exclude_self) -> (Tensor hinge, Tensor selected, Tensor active, Tensor weights)");
  m.def(
      "mine_triplets(Tensor distances, Tensor anchor_labels, Tensor reference_labels, int mining, float margin, "
      "bool exclude_self) -> (Tensor anchors, Tensor positives, Tensor negatives)");
}

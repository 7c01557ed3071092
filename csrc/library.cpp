// Every op of pyaction, on one page. Schema floats are C++ doubles and ints are int64_t; strings never cross
// this boundary (Python maps names to bools and ints). Shapes and meanings: the header of each op.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(pyaction, m) {
  // Optical flow; params: the fields of Tvl1Params in their order                                 tvl1/tvl1.h
  // frames [N, 1 or 3, H, W] -> flow [N, 2, H, W]
  m.def("tvl1_flow(Tensor frame0, Tensor frame1, Tensor? initial_flow, float[] params) -> Tensor");
  // clip [N, T, 1 or 3, H, W] -> flow [N, T - 1, 2, H, W]
  m.def("tvl1_flow_clip(Tensor clip, float[] params) -> Tensor");
  // The same frame by frame: the first makes the state, each further one uses and changes it. index: of the frame.
  m.def("tvl1_begin(Tensor frame, float[] params) -> Tensor state");
  m.def("tvl1_next(Tensor(a!) state, Tensor frame, int index, float[] params) -> Tensor");

  // Bilinear warping: image [N, C, H, W], flow [N, 2, H, W] -> [N, C, H, W]                       warp/warp.h
  m.def("warp(Tensor image, Tensor flow, bool border) -> Tensor");
  m.def("warp_grad_flow(Tensor grad, Tensor image, Tensor flow, bool border) -> Tensor");
  m.def("warp_grad_image(Tensor grad, Tensor flow, bool border) -> Tensor");

  // Structural similarity: images [N, C, H, W] -> map [N, C, h, w]                                ssim/ssim.h
  m.def("ssim(Tensor image0, Tensor image1, int window, int stride, bool gaussian, float c1, float c2) -> Tensor");
  m.def(
      "ssim_grad(Tensor grad, Tensor image0, Tensor image1, int window, int stride, bool gaussian, float c1, "
      "float c2, bool need0, bool need1) -> (Tensor grad0, Tensor grad1)");

  // What a flow explains of two frames: frames [N, C, H, W], flow [N, 2, H, W] -> pixel, smoothness, ssim
  // options: PhotometricOption in its order                                     photometric/photometric.h
  m.def(
      "photometric_loss(Tensor frame0, Tensor frame1, Tensor flow, float[] options, int window, bool pad_border) "
      "-> Tensor");
  m.def(
      "photometric_grad(Tensor grad, Tensor frame0, Tensor frame1, Tensor flow, float[] options, int window, "
      "bool pad_border, bool of_frames) -> (Tensor grad_flow, Tensor grad_frame0, Tensor grad_warped)");

  // Triplets, from embeddings [N, D], [M, D] or distances [N, M], and labels [N], [M]         triplet/triplet.h
  m.def(
      "hardest_pairs(Tensor anchors, Tensor references, Tensor anchor_labels, Tensor reference_labels, "
      "bool exclude_self) -> Tensor");
  m.def(
      "triplet_hinge(Tensor distances, Tensor anchor_labels, Tensor reference_labels, int mining, float margin, "
      "bool exclude_self) -> (Tensor hinge, Tensor selected, Tensor active, Tensor weights)");
  m.def(
      "mine_triplets(Tensor distances, Tensor anchor_labels, Tensor reference_labels, int mining, float margin, "
      "bool exclude_self) -> (Tensor anchors, Tensor positives, Tensor negatives)");
}

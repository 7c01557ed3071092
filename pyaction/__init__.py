"""Two-stream action recognition in video, with its own C++ and CUDA kernels."""

// TV-L1 optical flow in the structure of OpenCV's CUDA code: one thread per pixel, every field in global memory, and
// two launches per iteration, one for the flow and one for the dual variables. The numbers are those of OpenCV 5's CPU
// code, whose way of resampling is another, so that results can be compared. (width, height) are those of what a
// kernel writes; planes are dense. cupy_tvl1.py has the loops around the launches.
namespace {

constexpr float kFlat = 1.1920929e-7f; // squared gradients up to this carry no data term

struct Pixel {
  int x, y;
};

__device__ Pixel own_pixel() {
  return {static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x),
          static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y)};
}

// Of the four taps around a place that lies x behind the second one: cubic convolution (Keys 1981), a = -0.75.
__device__ void cubic_weights(float x, float* weights) {
  constexpr float a = -0.75f;
  const float y = 1.0f - x;
  weights[0] = a * x * y * y;
  weights[1] = ((a + 2.0f) * x - (a + 3.0f)) * x * x + 1.0f;
  weights[3] = a * x * x * y;
  weights[2] = 1.0f - weights[0] - weights[1] - weights[3];
}

// Linear interpolation's two taps on one axis, pixel centres at half integers; outside, the edge pixel repeats.
__device__ void linear_taps(int target, double ratio, int size, int& first, int& second, float& fraction) {
  const double position = fmin(fmax((target + 0.5) * ratio - 0.5, 0.0), size - 1.0);
  first = static_cast<int>(position);
  second = first + 1 < size ? first + 1 : first;
  fraction = static_cast<float>(position - first);
}

// Backward differences; left of the first column px is zero, above the first row py is.
__device__ float divergence(const float* px, const float* py, Pixel p, int width) {
  const int i = p.y * width + p.x;
  const float left = p.x > 0 ? px[i - 1] : 0.0f, above = p.y > 0 ? py[i - width] : 0.0f;
  return px[i] - left + (py[i] - above);
}

// Forward difference towards the pixel `step` further on, where there is one.
__device__ float forward(const float* u, int i, int step, bool inside) {
  return inside ? u[i + step] - u[i] : 0.0f;
}

} // namespace

// Bilinear. ratio: source pixels per target pixel.
extern "C" __global__ void resize(const float* source, int source_width, int source_height, double ratio_x,
                                  double ratio_y, float* target, int width, int height) {
  const Pixel p = own_pixel();
  if (p.x >= width || p.y >= height) {
    return;
  }
  int left, right, top, bottom;
  float fraction_x, fraction_y;
  linear_taps(p.x, ratio_x, source_width, left, right, fraction_x);
  linear_taps(p.y, ratio_y, source_height, top, bottom, fraction_y);
  const float* upper = source + top * source_width;
  const float* lower = source + bottom * source_width;
  const float above = upper[left] + fraction_x * (upper[right] - upper[left]);
  const float below = lower[left] + fraction_x * (lower[right] - lower[left]);
  target[p.y * width + p.x] = above + fraction_y * (below - above);
}

extern "C" __global__ void scale(float* u, float factor, int width, int height) {
  const Pixel p = own_pixel();
  if (p.x < width && p.y < height) {
    u[p.y * width + p.x] *= factor;
  }
}

// Half the difference of the neighbours on both sides; an edge pixel is its own neighbour.
extern "C" __global__ void centred_gradient(const float* image, float* gradient_x, float* gradient_y, int width,
                                            int height) {
  const Pixel p = own_pixel();
  if (p.x >= width || p.y >= height) {
    return;
  }
  const int i = p.y * width + p.x;
  const int left = p.x > 0 ? 1 : 0, right = p.x < width - 1 ? 1 : 0;
  const int above = p.y > 0 ? width : 0, below = p.y < height - 1 ? width : 0;
  gradient_x[i] = 0.5f * (image[i + right] - image[i - left]);
  gradient_y[i] = 0.5f * (image[i + below] - image[i - above]);
}

// The data term of one warp: frame 1 and its gradient where the flow points, bicubic, zero outside the image.
// Writes the gradient (wx, wy), its squared length, and the residual's part that does not change with u.
extern "C" __global__ void warp(const float* frame0, const float* frame1, const float* gradient_x,
                                const float* gradient_y, const float* u1, const float* u2, float* wx, float* wy,
                                float* norm, float* constant, int width, int height) {
  const Pixel p = own_pixel();
  if (p.x >= width || p.y >= height) {
    return;
  }
  const int i = p.y * width + p.x;
  const float flow_x = u1[i], flow_y = u2[i], grey = frame0[i];
  const float x = p.x + flow_x, y = p.y + flow_y;
  float warped = 0.0f, sum_x = 0.0f, sum_y = 0.0f;
  if (x >= -2.0f && x < width + 2.0f && y >= -2.0f && y < height + 2.0f) { // else no tap is inside
    const int first_x = static_cast<int>(floorf(x)) - 1, first_y = static_cast<int>(floorf(y)) - 1;
    float weights_x[4], weights_y[4];
    cubic_weights(x - floorf(x), weights_x);
    cubic_weights(y - floorf(y), weights_y);
    for (int row = 0; row < 4; ++row) {
      for (int column = 0; column < 4; ++column) {
        const int tap_x = first_x + column, tap_y = first_y + row;
        if (tap_x >= 0 && tap_x < width && tap_y >= 0 && tap_y < height) {
          const float weight = weights_y[row] * weights_x[column];
          const int tap = tap_y * width + tap_x;
          warped += weight * frame1[tap];
          sum_x += weight * gradient_x[tap];
          sum_y += weight * gradient_y[tap];
        }
      }
    }
  }
  wx[i] = sum_x;
  wy[i] = sum_y;
  norm[i] = sum_x * sum_x + sum_y * sum_y;
  constant[i] = warped - sum_x * flow_x - sum_y * flow_y - grey;
}

// Half an iteration: the flow towards a small residual (limit: attachment * theta), then towards smoothness.
extern "C" __global__ void estimate_flow(const float* wx, const float* wy, const float* norm, const float* constant,
                                         float* u1, float* u2, const float* p11, const float* p12, const float* p21,
                                         const float* p22, float limit, float theta, int width, int height) {
  const Pixel p = own_pixel();
  if (p.x >= width || p.y >= height) {
    return;
  }
  const int i = p.y * width + p.x;
  // All that is read comes before what is written: the compiler cannot know that the fields do not overlap.
  const float gradient_x = wx[i], gradient_y = wy[i], length = norm[i], before1 = u1[i], before2 = u2[i];
  const float divergence1 = divergence(p11, p12, p, width), divergence2 = divergence(p21, p22, p, width);
  const float rho = constant[i] + (gradient_x * before1 + gradient_y * before2);
  float step = 0.0f;
  if (rho < -limit * length) {
    step = limit;
  } else if (rho > limit * length) {
    step = -limit;
  } else if (length > kFlat) {
    step = -rho / length;
  }
  u1[i] = before1 + step * gradient_x + theta * divergence1;
  u2[i] = before2 + step * gradient_y + theta * divergence2;
}

// The other half: the dual variables. Each component of the flow has a norm of its own; ratio: tau / theta.
extern "C" __global__ void estimate_duals(const float* u1, const float* u2, float* p11, float* p12, float* p21,
                                          float* p22, float ratio, int width, int height) {
  const Pixel p = own_pixel();
  if (p.x >= width || p.y >= height) {
    return;
  }
  const int i = p.y * width + p.x;
  const bool has_right = p.x < width - 1, has_below = p.y < height - 1;
  const float u1x = forward(u1, i, 1, has_right), u1y = forward(u1, i, width, has_below);
  const float u2x = forward(u2, i, 1, has_right), u2y = forward(u2, i, width, has_below);
  const float before11 = p11[i], before12 = p12[i], before21 = p21[i], before22 = p22[i];
  const float norm1 = 1.0f + ratio * hypotf(u1x, u1y), norm2 = 1.0f + ratio * hypotf(u2x, u2y);
  p11[i] = (before11 + ratio * u1x) / norm1;
  p12[i] = (before12 + ratio * u1y) / norm1;
  p21[i] = (before21 + ratio * u2x) / norm2;
  p22[i] = (before22 + ratio * u2y) / norm2;
}

// A pass of the policy over the newest tokens of many songs, for CPUs: their embeddings in, logits out, caches in place.
//
// A frame reads all weights for a few rows, so it can be as fast as memory is. XLA's products of a few rows reach half
// of that: they pack the weights anew each time. Here these are packed once per rollout (models/kernel.py) into panels of
// kLanes outputs that lie in the order in which they are read. Every output is one sum over its inputs in order, so a
// song's numbers do not depend on the songs beside it.
//
// Rows are tokens: token s of song b is row b * steps + s. All arrays are float32, sizes multiples of kLanes but the
// V's. The blocks are those of models/layers.py.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

constexpr int kLanes = 16;  // outputs of a panel
constexpr float kAttentionFactor = 10;

// Numbers of a register, and registers: a vector wider than a register would live in memory.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kRegisters = 32;
#elif defined(__AVX__)
constexpr int kWidth = 8, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kWidth = 4, kRegisters = 32;
#else
constexpr int kWidth = 4, kRegisters = 16;
#endif
constexpr int kParts = kLanes / kWidth;  // vectors of a panel

using Vector = float __attribute__((vector_size(4 * kWidth)));
using Integers = int32_t __attribute__((vector_size(4 * kWidth)));
using Unaligned = float __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Unaligned*>(to) = value; }

inline float sum(Vector x) {
  float total = 0;
  for (int i = 0; i < kWidth; ++i) total += x[i];
  return total;
}

inline float largest(Vector x) {
  float found = x[0];
  for (int i = 1; i < kWidth; ++i) found = std::max(found, x[i]);
  return found;
}

inline Vector larger(Vector x, Vector y) { return y > x ? y : x; }  // x where it is NaN

// e^x to 2 units in the last place (x from -87 to 88, cut there; of NaN, NaN): 2^n e^r, n whole, |r| < ln(2) / 2, where
// e^r is its Taylor series to r^7.
inline Vector exponential(Vector x) {
  const Vector zero = {};
  x = larger(x, zero - 87);
  x = x > 88 ? zero + 88 : x;
  const float whole = 12582912;  // 1.5 * 2^23: a sum with it is rounded to a whole number
  const Vector shifted = x * 1.44269504f + whole;
  const Vector n = shifted - whole;
  const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln(2) in two parts
  Vector series = r / 5040 + 1.0f / 720;
  for (float factor : {1.0f / 120, 1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f}) series = series * r + factor;
  const Integers exponent = (reinterpret_cast<Integers>(shifted) - 0x4B400000) << 23;
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(series) + exponent);
}

// Work in stages, each a number of tasks, done by the caller and by whoever has come to help. Nobody is waited for who
// has not taken a task: helpers may come late or never, so that busy threads cannot block a call.
class Crew {
 public:
  explicit Crew(int threads) : threads_(threads) {}

  int threads() const { return threads_; }

  template <class Work>
  void each(int tasks, const Work& work) {
    work_ = [](const void* work, int task) { (*static_cast<const Work*>(work))(task); };
    data_ = &work;
    done_.store(0, std::memory_order_relaxed);
    const uint64_t stage = (next_.load(std::memory_order_relaxed) >> 40) + 1;
    next_.store(stage << 40 | uint64_t(tasks) << 20, std::memory_order_release);
    take_tasks();
    for (int waits = 0; done_.load(std::memory_order_acquire) < tasks; ++waits) pause(waits);
  }

  // Helps until the caller is through.
  void help() {
    for (int waits = 0; !is_over_.load(std::memory_order_acquire); ++waits) {
      if (take_tasks()) waits = 0;
      pause(waits);
    }
  }

  void end() { is_over_.store(true, std::memory_order_release); }

 private:
  bool take_tasks() {
    bool has_taken = false;
    for (;;) {
      if (!is_open(next_.load(std::memory_order_acquire))) return has_taken;
      const uint64_t taken = next_.fetch_add(1, std::memory_order_acq_rel);
      if (!is_open(taken)) return has_taken;
      work_(data_, taken & kField);
      done_.fetch_add(1, std::memory_order_release);
      has_taken = true;
    }
  }

  static bool is_open(uint64_t next) { return (next & kField) < (next >> 20 & kField); }

  static void pause(int waits) {
    if (waits > 2000) std::this_thread::yield();
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
  }

  static constexpr uint64_t kField = (1 << 20) - 1;
  // stage << 40 | tasks << 20 | next task: one number, so that nobody can take a task of a stage that is over.
  alignas(64) std::atomic<uint64_t> next_{0};
  alignas(64) std::atomic<int> done_{0};
  std::atomic<bool> is_over_{false};
  const int threads_;  // at most, with the caller
  void (*work_)(const void*, int);
  const void* data_;
};

// A crew of the caller and threads of the pool that are asked to help; fewer while those asked for earlier have not come:
// threads that others keep busy would find their queues full, and then a pool has the caller do what it asks for.
std::shared_ptr<Crew> gather(ffi::ThreadPool& pool, int64_t devices) {
  static const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
  static std::atomic<int> coming{0};
  const auto crew = std::make_shared<Crew>(std::max<int64_t>(1, std::min(cores, pool.num_threads()) / devices));
  const auto caller = std::this_thread::get_id();
  for (int n = 1; n < crew->threads() && coming.load(std::memory_order_relaxed) < cores; ++n) {
    coming.fetch_add(1, std::memory_order_relaxed);
    pool.Schedule([crew, caller] {
      coming.fetch_sub(1, std::memory_order_relaxed);
      if (std::this_thread::get_id() != caller) crew->help();
    });
  }
  return crew;
}

// ------------------------------------------------------------------------------------------------------- products

// Rows in memory. The step to the next is no multiple of a large power of two, or rows would share few lines of a cache.
struct Rows {
  float* data;
  int64_t count, step;

  float* operator[](int64_t row) const { return data + row * step; }
};

constexpr int kMostSums = kRegisters * 3 / 4 / kParts;  // panels of a tile: registers left over are for weights
constexpr int kMostRows = kMostSums / 2;

// The sums of `rows` rows of x [depth] times `panels` neighbouring panels of W [depth, kLanes] each: out [rows, panels,
// kParts].
// Not inlined: code around it would take registers from the sums.
template <int rows, int panels>
__attribute__((noinline)) void tile(const float* x, int64_t step, int64_t depth, const float* w, Vector* out) {
  constexpr int kAhead = 64 * kLanes;  // how far ahead memory is asked for weights
  constexpr int kGroups = (rows + 3) / 4;
  constexpr int kVectors = panels * kParts;
  Vector sums[rows][kVectors] = {};
  const float* group[kGroups];
  for (int g = 0; g < kGroups; ++g) group[g] = x + 4 * g * step;
  for (int64_t k = 0; k < depth; ++k, w += kLanes) {
    Vector weights[kVectors];
    for (int p = 0; p < panels; ++p) {
      const float* from = w + p * depth * kLanes;
      for (int part = 0; part < kParts; ++part) weights[p * kParts + part] = load(from + part * kWidth);
      __builtin_prefetch(from + kAhead, 0, 2);
    }
    for (int r = 0; r < rows; ++r)
      for (int v = 0; v < kVectors; ++v) sums[r][v] += group[r / 4][r % 4 * step] * weights[v];
    for (int g = 0; g < kGroups; ++g) ++group[g];
  }
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < kVectors; ++v) out[r * kVectors + v] = sums[r][v];
}

template <int panels, int rows = std::clamp(kMostSums / panels, 1, kMostRows)>
void tile_of(int count, const float* x, int64_t step, int64_t depth, const float* w, Vector* out) {
  if (count == rows) return tile<rows, panels>(x, step, depth, w, out);
  if constexpr (rows > 1) tile_of<panels, rows - 1>(count, x, step, depth, w, out);
}

// x W for panels `first` ... `last` - 1 of W; use(row, panel, y, wide) gets `wide` neighbouring panels' outputs of a row,
// kParts vectors each.
template <class Use>
void multiply(Rows x, int64_t depth, const float* w, int first, int last, const Use& use) {
  Vector y[std::max(4, kMostSums) * kParts];
  const int most = std::min<int64_t>(kMostRows, x.count);
  for (int panel = first, wide; panel < last; panel += wide) {
    wide = 4 * most <= kMostSums ? 4 : 2;  // enough sums at once that none waits for the one before
    while (wide > last - panel) wide /= 2;
    for (int64_t row = 0; row < x.count; row += most) {
      const int count = std::min<int64_t>(most, x.count - row);
      const float* weights = w + panel * depth * kLanes;
      if (wide == 4) tile_of<4>(count, x[row], x.step, depth, weights, y);
      if (wide == 2) tile_of<2>(count, x[row], x.step, depth, weights, y);
      if (wide == 1) tile_of<1>(count, x[row], x.step, depth, weights, y);
      for (int r = 0; r < count; ++r) use(row + r, panel, y + r * wide * kParts, wide);
    }
  }
}

// The same for all outputs of W, spread over the crew: neighbouring panels stay together, to be read on in one sweep.
template <class Use>
void multiply(Crew& crew, Rows x, int64_t depth, const float* w, int64_t outputs, const Use& use) {
  const int panels = (outputs + kLanes - 1) / kLanes, share = std::max(1, panels / (16 * crew.threads())) * 4;
  crew.each((panels + share - 1) / share, [&](int task) {
    multiply(x, depth, w, task * share, std::min(panels, (task + 1) * share), use);
  });
}

// sqrt(width) / |x| of each row, which is what the norm without a gain multiplies it by.
void norms(Rows x, int64_t width, float* out) {
  for (int64_t row = 0; row < x.count; ++row) {
    Vector squares = {};
    for (int64_t i = 0; i < width; i += kWidth) squares += load(x[row] + i) * load(x[row] + i);
    out[row] = std::sqrt(float(width)) / std::max(std::sqrt(sum(squares)), 1e-12f);
  }
}

// ------------------------------------------------------------------------------------------------------ attention

// A query or key of one head: of unit length, times its gain and `factor`, its first half rotated.
void rotated_unit(const float* x, int64_t width, const float* gain, const float* cosines, const float* sines,
                  float factor, float* out) {
  Vector squares = {};
  for (int64_t i = 0; i < width; i += kWidth) squares += load(x + i) * load(x + i);
  const float scale = factor / std::sqrt(std::max(sum(squares), 1e-24f));
  for (int64_t i = 0; i < width; ++i) out[i] = x[i] * scale * gain[i];
  for (int64_t pair = 0; pair < width / 4; ++pair) {
    const float even = out[2 * pair], odd = out[2 * pair + 1];
    out[2 * pair] = even * cosines[pair] - odd * sines[pair];
    out[2 * pair + 1] = odd * cosines[pair] + even * sines[pair];
  }
}

// exp(score - largest score) in place of scores [seen], 0 from there to `padded`; 1 / their sum.
float softmax(float* scores, int64_t seen, int64_t padded) {
  std::fill(scores + seen, scores + padded, -INFINITY);
  Vector top = load(scores), total = {};
  for (int64_t i = kWidth; i < padded; i += kWidth) top = larger(top, load(scores + i));
  const float most = largest(top);
  for (int64_t i = 0; i < padded; i += kWidth) {
    const Vector weight = exponential(load(scores + i) - most);
    store(scores + i, weight);
    if (i + kWidth <= seen) total += weight;
  }
  std::fill(scores + seen, scores + padded, 0.0f);
  if (seen % kWidth) total += load(scores + seen / kWidth * kWidth);
  return 1 / sum(total);
}

// Queries q [queries, width] at positions first, first + 1, ... over keys [positions / kLanes, width, kLanes] and values
// [positions, width] up to their own; scores has room for queries * (first + queries + kLanes) numbers.
template <int queries, int vectors>
void attend(const float* q, int64_t first, const float* keys, const float* values, float* scores, Rows out) {
  constexpr int width = vectors * kLanes, kAhead = 16;
  constexpr int kSums = kParts == 1 ? 4 : 2;  // at once, so that none waits for the one before
  const int64_t padded = (first + queries + kLanes - 1) / kLanes * kLanes;
  for (int64_t block = 0; block < padded; block += kLanes)
    for (int part = 0; part < kParts; ++part) {
      Vector sums[queries][kSums] = {};
      for (int i = 0; i < width; ++i) {
        const Vector key = load(keys + block * width + i * kLanes + part * kWidth);
        if (!part) __builtin_prefetch(keys + (block + kLanes) * width + i * kLanes);
        for (int n = 0; n < queries; ++n) sums[n][i % kSums] += q[n * width + i] * key;
      }
      for (int n = 0; n < queries; ++n) {
        Vector total = sums[n][0] + sums[n][1];
        if constexpr (kSums == 4) total += sums[n][2] + sums[n][3];
        store(scores + n * padded + block + part * kWidth, total);
      }
    }
  float factor[queries];
  for (int n = 0; n < queries; ++n) factor[n] = softmax(scores + n * padded, first + n + 1, padded);
  constexpr int kVectors = vectors * kParts, kAtOnce = std::min(kVectors, kRegisters / 4);
  for (int from = 0; from < kVectors; from += kAtOnce) {
    Vector mixed[queries][kAtOnce] = {};
    for (int64_t place = 0; place < first + queries; ++place) {
      const float* value = values + place * width + from * kWidth;
      for (int v = 0; v < kAtOnce; ++v) {
        if (v % kParts == 0) __builtin_prefetch(value + kAhead * width + v * kWidth);
        for (int n = 0; n < queries; ++n) mixed[n][v] += scores[n * padded + place] * load(value + v * kWidth);
      }
    }
    for (int n = 0; n < queries; ++n)
      for (int v = 0; v < kAtOnce; ++v) store(out[n] + (from + v) * kWidth, mixed[n][v] * factor[n]);
  }
}

template <int queries>
void attend(int64_t width, const float* q, int64_t first, const float* keys, const float* values, float* scores,
            Rows out) {
  switch (width / kLanes) {
    case 1: return attend<queries, 1>(q, first, keys, values, scores, out);
    case 2: return attend<queries, 2>(q, first, keys, values, scores, out);
    case 4: return attend<queries, 4>(q, first, keys, values, scores, out);
    case 8: return attend<queries, 8>(q, first, keys, values, scores, out);
  }
}

// ------------------------------------------------------------------------------------------------------- the pass

using Array = ffi::Buffer<ffi::F32>;

// Weights of layer `layer` of an array that stacks them.
const float* of_layer(const Array& stacked, int64_t layer) {
  return stacked.typed_data() + stacked.element_count() / stacked.dimensions()[0] * layer;
}

// Scratch memory that a thread keeps from call to call.
float* scratch(std::vector<float>& kept, size_t count) {
  if (kept.size() < count) kept.resize(count);
  return kept.data();
}

// embedded [songs, steps, dim], for positions that follow `position` [] cached ones; cosines and sines [steps, d / 4] of
// their angles; panels of weights, biases and gains stacked over layers; logits [songs, V] of the last steps;
// keys [layers, songs, heads, positions / kLanes, d, kLanes] and values [layers, songs, heads, positions, d]. `devices`
// share the cores.
ffi::Error decode(ffi::ThreadPool pool, int64_t devices, Array embedded, ffi::Buffer<ffi::S32> position, Array cosines,
                  Array sines, Array qkv, Array out, Array inner, Array inner_bias, Array outer, Array outer_bias,
                  Array query_gain, Array key_gain, Array head, Array, Array, ffi::Result<Array> logits,
                  ffi::Result<Array> keys, ffi::Result<Array> values) {
  const auto input = embedded.dimensions(), cache = values->dimensions();
  const int64_t songs = input[0], steps = input[1], dim = input[2], rows = songs * steps;
  const int64_t layers = cache[0], heads = cache[2], room = cache[3], width = cache[4], attended = heads * width;
  const int64_t hidden = inner_bias.dimensions()[1] / 2;
  const int64_t first = position.typed_data()[0];
  if (first < 0 || first + steps > room) return ffi::Error::InvalidArgument("the cache has no room for these tokens");

  static thread_local std::vector<float> kept;
  float* free = scratch(kept, rows * (dim + 4 * attended + hidden + 4 * kLanes + 1));
  auto take = [&](int64_t columns) {
    const Rows taken{free, rows, columns + kLanes};
    free += rows * taken.step;
    return taken;
  };
  const Rows h = take(dim), projected = take(3 * attended), mixed = take(attended), active = take(hidden);
  float* norm = free;
  for (int64_t row = 0; row < rows; ++row) std::copy_n(embedded.typed_data() + row * dim, dim, h[row]);

  const auto crew = gather(pool, devices);

  auto add_to_h = [&](int64_t row, int panel, const Vector* y, int wide, const float* bias) {
    for (int v = 0; v < wide * kParts; ++v) {
      const int at = panel * kLanes + v * kWidth;
      float* to = h[row] + at;
      store(to, load(to) + (bias ? y[v] + load(bias + at) : y[v]));
    }
  };
  for (int64_t layer = 0; layer < layers; ++layer) {
    norms(h, dim, norm);
    multiply(*crew, h, dim, of_layer(qkv, layer), 3 * attended, [&](int64_t row, int panel, const Vector* y, int wide) {
      for (int v = 0; v < wide * kParts; ++v) store(projected[row] + panel * kLanes + v * kWidth, y[v] * norm[row]);
    });

    crew->each(songs * heads, [&](int task) {
      static thread_local std::vector<float> kept_scores;
      float* scores = scratch(kept_scores, 2 * (room + kLanes) + 3 * width);
      float *q = scores + 2 * (room + kLanes), *key = q + 2 * width;
      const int64_t song = task / heads, head = task % heads;
      const int64_t place = ((layer * songs + song) * heads + head) * room * width;
      float *own_keys = keys->typed_data() + place, *own_values = values->typed_data() + place;
      auto unit = [&](int64_t step, int part, const Array& gain, float factor, float* to) {
        const float* x = projected[song * steps + step] + part * attended + head * width;
        const int64_t angle = step * width / 4;
        rotated_unit(x, width, of_layer(gain, layer) + head * width, cosines.typed_data() + angle,
                     sines.typed_data() + angle, factor, to);
      };
      for (int64_t step = 0; step < steps; ++step) {
        unit(step, 1, key_gain, 1, key);
        const int64_t at = first + step, block = at / kLanes * kLanes;
        for (int64_t i = 0; i < width; ++i) own_keys[block * width + i * kLanes + at % kLanes] = key[i];
        std::copy_n(projected[song * steps + step] + 2 * attended + head * width, width, own_values + at * width);
      }
      for (int64_t step = 0; step < steps; step += 2) {
        const Rows to{mixed[song * steps + step] + head * width, 2, mixed.step};
        const bool is_pair = step + 1 < steps;
        unit(step, 0, query_gain, kAttentionFactor, q);
        if (is_pair) unit(step + 1, 0, query_gain, kAttentionFactor, q + width);
        (is_pair ? attend<2> : attend<1>)(width, q, first + step, own_keys, own_values, scores, to);
      }
    });
    multiply(*crew, mixed, attended, of_layer(out, layer), dim, [&](int64_t row, int panel, const Vector* y, int wide) {
      add_to_h(row, panel, y, wide, nullptr);
    });

    norms(h, dim, norm);
    const float* bias = of_layer(inner_bias, layer);
    // Even panels hold values, each followed by the panel of their gates.
    multiply(*crew, h, dim, of_layer(inner, layer), 2 * hidden, [&](int64_t row, int panel, const Vector* y, int wide) {
      for (int p = 0; p < wide; p += 2)
        for (int part = 0; part < kParts; ++part) {
          const float* b = bias + (panel + p) * kLanes + part * kWidth;
          const Vector* const own = y + p * kParts + part;
          const Vector value = own[0] * norm[row] + load(b), gate = own[kParts] * norm[row] + load(b + kLanes);
          store(active[row] + (panel + p) / 2 * kLanes + part * kWidth, value * gate / (1 + exponential(-gate)));
        }
    });
    bias = of_layer(outer_bias, layer);
    multiply(*crew, active, hidden, of_layer(outer, layer), dim, [&](int64_t row, int panel, const Vector* y, int wide) {
      add_to_h(row, panel, y, wide, bias);
    });
  }

  norms(h, dim, norm);
  const Rows last = {h[steps - 1], songs, steps * h.step};
  const int64_t size = logits->dimensions()[1];
  multiply(*crew, last, dim, head.typed_data(), size, [&](int64_t song, int panel, const Vector* y, int wide) {
    const float scale = norm[song * steps + steps - 1];
    for (int v = 0; v < wide * kParts; ++v) {
      const int64_t column = panel * kLanes + v * kWidth;
      if (column >= size) break;
      float kept[kWidth];
      store(kept, y[v] * scale);
      std::copy_n(kept, std::min<int64_t>(kWidth, size - column), logits->typed_data() + song * size + column);
    }
  });
  crew->end();
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(gapt_decode, decode,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<int64_t>("devices")
                                  .Arg<Array>()                  // embedded
                                  .Arg<ffi::Buffer<ffi::S32>>()  // position
                                  .Arg<Array>()                  // cosines
                                  .Arg<Array>()                  // sines
                                  .Arg<Array>()                  // qkv
                                  .Arg<Array>()                  // out
                                  .Arg<Array>()                  // inner
                                  .Arg<Array>()                  // inner_bias
                                  .Arg<Array>()                  // outer
                                  .Arg<Array>()                  // outer_bias
                                  .Arg<Array>()                  // query_gain
                                  .Arg<Array>()                  // key_gain
                                  .Arg<Array>()                  // head
                                  .Arg<Array>()                  // keys, which the result overwrites
                                  .Arg<Array>()                  // values
                                  .Ret<Array>()
                                  .Ret<Array>()
                                  .Ret<Array>());

// The kernels of the probe (probe.py): built once into probe.ptx by tools/probe_ptx.py, for compute capability 8.0 and later.
// A and B hold multiples of 1/128 in bf16, so each product of a row and a column is exact in fp32 in any order of its sums:
// every GPU must write the same bits, and a host can work them out as well.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;

__device__ __forceinline__ u32 mixed(u32 x) {
  x ^= x >> 16; x *= 0x7feb352dU;
  x ^= x >> 15; x *= 0x846ca68bU;
  return x ^ (x >> 16);
}

// Fill p with n bf16 values k/128, -128 <= k < 128, that depend on seed and place alone.
extern "C" __global__ void fill(u16 *p, u64 n, u32 seed) {
  for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
    int k = (int)(mixed((u32)i + seed) >> 24) - 128;
    p[i] = (u16)(__float_as_uint((float)k * 0.0078125f) >> 16);
  }
}

// Add to *sum the bits of n values of p, each times an odd number of its place.
extern "C" __global__ void checksum(const u32 *p, u64 n, u64 *sum) {
  u64 mine = 0;
  for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x)
    mine += (u64)p[i] * (2 * i + 1);
  for (int lane = 16; lane; lane >>= 1) mine += __shfl_xor_sync(0xffffffffU, mine, lane);
  if ((threadIdx.x & 31) == 0) atomicAdd(sum, mine);
}

#define TILE_M 128
#define TILE_N 256
#define TILE_K 64
#define THREADS 256
#define STAGE_BYTES ((TILE_M + TILE_N) * TILE_K * 2)

__device__ __forceinline__ void fetched(u32 to, const u16 *from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from));
}

__device__ __forceinline__ void loaded(u32 *r, u32 at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}

__device__ __forceinline__ void multiplied(float *c, const u32 *a, const u32 *b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// A row of a tile is 128 bytes in eight pieces of 16; a piece lies at its number xor the row's, so that no bank is asked twice.
__device__ __forceinline__ u32 placed(int row, int piece) { return row * (TILE_K * 2) + ((piece ^ (row & 7)) << 4); }

template <int STAGES>
__device__ __forceinline__ void product(const u16 *A, const u16 *B, float *C, int n) {
  extern __shared__ __align__(128) unsigned char shared[];
  const u32 base = (u32)__cvta_generic_to_shared(shared);
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int warp_m = (warp & 1) * 64, warp_n = (warp >> 1) * 64;
  // Blocks go through C in bands of eight rows of tiles, so that what they read together stays in the L2 cache.
  const int across = n / TILE_N, band = 8 * across, number = blockIdx.x;
  const int row0 = ((number / band) * 8 + number % 8) * TILE_M, column0 = (number % band) / 8 * TILE_N;
  const u16 *a = A + (u64)row0 * n, *b = B + (u64)column0 * n;

  float sums[4][8][4];
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int k = 0; k < 4; k++) sums[i][j][k] = 0.f;

  const int piece = thread & 7, row = thread >> 3;
  auto fetch = [&](int stage, int k) {
    const u32 at = base + stage * STAGE_BYTES;
#pragma unroll
    for (int r = 0; r < TILE_M; r += THREADS / 8) fetched(at + placed(row + r, piece), a + (u64)(row + r) * n + k + piece * 8);
#pragma unroll
    for (int r = 0; r < TILE_N; r += THREADS / 8)
      fetched(at + TILE_M * TILE_K * 2 + placed(row + r, piece), b + (u64)(row + r) * n + k + piece * 8);
  };

  const int steps = n / TILE_K;
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) {
    fetch(s, s * TILE_K);
    asm volatile("cp.async.commit_group;");
  }
  int stage = 0, next = STAGES - 1;
  for (int step = 0; step < steps; step++) {
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
    __syncthreads();
    if (step + STAGES - 1 < steps) fetch(next, (step + STAGES - 1) * TILE_K);
    asm volatile("cp.async.commit_group;");
    const u32 at_a = base + stage * STAGE_BYTES, at_b = at_a + TILE_M * TILE_K * 2;
#pragma unroll
    for (int k = 0; k < TILE_K / 16; k++) {
      u32 fa[4][4], fb[4][4];
#pragma unroll
      for (int i = 0; i < 4; i++) loaded(fa[i], at_a + placed(warp_m + i * 16 + (lane & 15), k * 2 + (lane >> 4)));
#pragma unroll
      for (int j = 0; j < 4; j++)
        loaded(fb[j], at_b + placed(warp_n + j * 16 + (lane & 7) + ((lane >> 4) << 3), k * 2 + ((lane >> 3) & 1)));
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) multiplied(sums[i][j], fa[i], fb[j >> 1] + (j & 1) * 2);
    }
    if (++stage == STAGES) stage = 0;
    if (++next == STAGES) next = 0;
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float *c = C + (u64)(row0 + warp_m + i * 16 + (lane >> 2)) * n + column0 + warp_n + j * 8 + (lane & 3) * 2;
      *(float2 *)c = make_float2(sums[i][j][0], sums[i][j][1]);
      *(float2 *)(c + 8 * (u64)n) = make_float2(sums[i][j][2], sums[i][j][3]);
    }
}

// C = A times B transposed; A, B: n x n of bf16, C: n x n of fp32, rows one after another; n a multiple of 1024.
extern "C" __global__ void __launch_bounds__(THREADS) product2(const u16 *A, const u16 *B, float *C, int n) { product<2>(A, B, C, n); }
extern "C" __global__ void __launch_bounds__(THREADS) product3(const u16 *A, const u16 *B, float *C, int n) { product<3>(A, B, C, n); }
extern "C" __global__ void __launch_bounds__(THREADS) product4(const u16 *A, const u16 *B, float *C, int n) { product<4>(A, B, C, n); }

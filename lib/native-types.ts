/**
 * The whole native surface, typed in one place. Calls are coarse: one per batch of generations, one per micro-batch of
 * learning. Typed arrays cross, never arrays of numbers. "Flat" arrays hold the sequences one after another, and
 * `offsets` [sequences + 1] says where each begins. Everything that returns a promise runs on the process's compute
 * thread and rejects with an SsrlError, or with the signal's reason after `abort(token)`.
 */
export type DType = 'f32' | 'bf16'

/** The model's shape as the engine wants it; made from config.json or GGUF metadata by lib/policy/model-config.ts. */
export interface NativeModelConfig {
  architecture: string
  hiddenSize: number
  intermediateSize: number
  numLayers: number
  numHeads: number
  numKvHeads: number
  headDim: number
  vocabSize: number
  maxPositions: number
  rmsNormEps: number
  ropeTheta: number
  ropeScaling: null | {
    factor: number
    lowFreqFactor: number
    highFreqFactor: number
    originalMaxPositions: number
  }
  ropeFactors: Float32Array | null
  qkvBias: boolean
  outputBias: boolean
  mlpBias: boolean
  qkNorm: boolean
  tieWordEmbeddings: boolean
}

/** One source of a parameter; `permutedHeads` > 0 undoes GGUF's row permutation of q and k over that many heads. */
export interface NativeTensorSource {
  parameter: string
  file: number
  tensor: string
  permutedHeads: number
}

type NumberArray =
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array

export interface NativeTensorInfo {
  name: string
  dtype: string
  shape: number[]
  bytes: number
}

export interface NativeTensorFile {
  format: 'safetensors' | 'gguf'
  /** Strings; of GGUF also numbers (bigints beyond 2^53), booleans, typed arrays and arrays of strings. */
  metadata: Record<string, string | number | bigint | boolean | string[] | NumberArray>
  tensors: NativeTensorInfo[]
}

/**
 * The type of the data unless `dtype` says F16, BF16 or, in GGUF files, Q8_0: a Float32Array is converted to it, a
 * Uint16Array holds the bits of F16 or BF16 already. Rows of Q8_0 are a multiple of 32.
 */
export interface NativeTensorToWrite {
  name: string
  /** Row-major, outermost first. */
  shape: readonly number[]
  data: ArrayBufferView
  dtype?: string
}

/**
 * A GGUF metadata value: `type` is u8, i8, u16, i16, u32, i32, u64, i64, f32, f64, bool or string, or one of the
 * numbers with [] for a typed array of that type, or string[].
 */
export interface NativeGgufEntry {
  type: string
  value: unknown
}

/** A tensor to export: a parameter, its rows permuted over `permuteHeads` heads unless that is 0, or values of its own. */
export type NativeGgufTensor =
  | { name: string; dtype: string; parameter: string; permuteHeads: number }
  | { name: string; dtype: string; values: Float32Array }

/** Stops one call or several; `abort()` may be called at any time, from the JS thread. */
export interface NativeAbortToken {
  abort(): void
}

export interface NativeGenerateRequest {
  /** Prompt ids; the n samples share its pages. */
  tokens: Int32Array
  n: number
  temperature: number
  topK: number
  topP: number
  minP: number
  maxNewTokens: number
  /** Philox key, high and low half of an unsigned 64-bit seed. */
  seedHigh: number
  seedLow: number
  /** Index of the first of the n samples (the second half of the key). */
  firstSample: number
  ignoreEnd: boolean
  /** Stop strings as UTF-8, matched on the decoded bytes across token borders. */
  stop: Uint8Array[]
}

export interface NativeCompletion {
  requestIndex: number
  sampleIndex: number
  tokens: Int32Array
  logProbs: Float32Array
  entropies: Float32Array
  /** Null unless the request truncates the distribution. */
  sampledLogProbs: Float32Array | null
  finishReason: 'stop' | 'end' | 'length'
}

export interface NativeGenerateOptions {
  requests: NativeGenerateRequest[]
  endTokens: Int32Array
  abort: NativeAbortToken | null
  /** Called on the JS thread with finished completions as they come; the promise then resolves with none. */
  onCompletion: ((completion: NativeCompletion) => void) | null
  onTokens: NativeTokensCallback | null
}

/** Called in batches: request, sample, token and its log-prob of each row of a decode step. */
export type NativeTokensCallback = (
  requests: Int32Array,
  samples: Int32Array,
  tokens: Int32Array,
  logProbs: Float32Array,
) => void

/** A sequence over the KV cache that can go on: generate, append text from outside, generate again. */
export interface NativeSession {
  /** Tokens so far. */
  readonly length: number
  append(tokens: Int32Array): Promise<void>
  generate(
    request: Omit<NativeGenerateRequest, 'tokens' | 'n'> & { append?: Int32Array },
    endTokens: Int32Array,
    abort: NativeAbortToken | null,
    onTokens: NativeTokensCallback | null,
  ): Promise<NativeCompletion>
  fork(n: number): Promise<NativeSession[]>
  close(): void
}

export interface NativeGeneratorStatistics {
  /** Tokens fed as part of a prompt, of appended text, or of what was computed again. */
  prefilledTokens: number
  /** Tokens sampled. */
  decodedTokens: number
  preemptions: number
  /** Passes through the model. */
  steps: number
  /** In which it worked; the rest of the time it waited for calls. */
  seconds: number
  pagesUsed: number
  pagesTotal: number
}

export interface NativePolicy {
  readonly exact: boolean
  readonly dtype: DType
  readonly threads: number
  parameters(): { name: string; shape: number[] }[]
  /** f32 copy of one parameter by Hugging Face name. */
  readParameter(name: string): Promise<Float32Array>
  writeParameter(name: string, values: Float32Array): Promise<void>
  /** id -> bytes for stop strings: bytes of token i are blob[offsets[i] .. offsets[i + 1]]. */
  setTokenBytes(blob: Uint8Array, offsets: Int32Array): void
  setCacheBudget(bytes: number): void
  generate(options: NativeGenerateOptions): Promise<NativeCompletion[]>
  openSession(tokens: Int32Array): Promise<NativeSession>
  generatorStatistics(): Promise<NativeGeneratorStatistics>
  /** Flat per-token values, T - 1 for a sequence of T tokens. */
  score(
    tokens: Int32Array,
    offsets: Int32Array,
    temperature: number,
    abort: NativeAbortToken | null,
  ): Promise<{ logProbs: Float32Array; entropies: Float32Array }>
  logits(tokens: Int32Array): Promise<Float32Array>
  /** Shares the weights until one of the two is trained or written. A frozen one can't be, and has no f32 matrices. */
  clone(frozen: boolean): Promise<NativePolicy>
  /** Writes the named parameters, in this order, as one safetensors file (fsynced). */
  writeSafetensors(
    path: string,
    parameters: string[],
    dtype: 'F32' | 'BF16' | 'F16',
    metadata: Record<string, string>,
  ): Promise<void>
  /** Writes a GGUF file (fsynced). */
  writeGguf(
    path: string,
    tensors: NativeGgufTensor[],
    metadata: Record<string, NativeGgufEntry>,
    abort: NativeAbortToken | null,
  ): Promise<void>
  /** Stops all work with ERR_DISPOSED; resolves when the memory is free. */
  dispose(): Promise<void>
}

export interface NativeLossOptions {
  /** 'value': returns alone. */
  type: 'sft' | 'policy-gradient' | 'value'
  temperature: number
  epsilon: number
  epsilonHigh: number
  dualClip: number
  beta: number
  /** Default: 'k3'. */
  klEstimator?: 'k1' | 'k2' | 'k3'
  /** Beside returns: 0 is no clip. */
  valueClip?: number
  valueCoefficient?: number
  /** The gradient of the value loss ends at the head; default false. */
  detachValue?: boolean
}

/** One micro-batch. Per-token arrays are flat over T - 1 positions per sequence (index t belongs to token t + 1). */
export interface NativeLearnerBatch {
  tokens: Int32Array
  offsets: Int32Array
  /** Mask, weights and normaliser folded together; 0 takes no part. */
  weights: Float32Array
  advantages: Float32Array | null
  oldLogProbs: Float32Array | null
  referenceLogProbs: Float32Array | null
  /** Weights of |log p - log p_old|. */
  driftWeights?: Float32Array | null
  /** One ratio a sequence; default false. */
  sequenceRatio?: boolean
  /** What values should be, for a learner with a value head. */
  returns?: Float32Array | null
  oldValues?: Float32Array | null
}

export interface NativeLossStatistics {
  loss: number
  policyLoss: number
  /** Sums over active tokens: divide by `rows`. */
  klSum: number
  entropySum: number
  ratioSum: number
  ratioMax: number
  mismatch: number
  clipLow: number
  clipHigh: number
  rows: number
  valueLoss: number
  valueSum: number
  valueClipped: number
  recomputed: number
  /** Flat, T - 1 a sequence; 0 where the weight is 0. */
  logProbs: Float32Array
}

export interface NativeLearner {
  accumulate(
    batch: NativeLearnerBatch,
    loss: NativeLossOptions,
    abort: NativeAbortToken | null,
  ): Promise<NativeLossStatistics>
  readGradient(name: string): Promise<Float32Array>
  zeroGradients(): Promise<void>
  /** Clips, updates, clears; a non-finite norm is ERR_NON_FINITE with the step left undone (gradients cleared). */
  step(options: {
    learningRate: number
    maxGradNorm: number
    /** Default: learningRate. */
    valueHeadLearningRate?: number
    /** The model stays as it is; default false. */
    valueHeadOnly?: boolean
  }): Promise<{ gradNorm: number }>
  /** The value of the state before each token but the first, flat: T - 1 a sequence. */
  values(tokens: Int32Array, offsets: Int32Array, abort: NativeAbortToken | null): Promise<Float32Array>
  /** [hidden] */
  readValueHead(): Promise<Float32Array>
  writeValueHead(values: Float32Array): Promise<void>
  /** f32 moments and step count, as one safetensors file. */
  saveState(path: string): Promise<void>
  loadState(path: string): Promise<void>
  readonly steps: number
  dispose(): void
}

export interface NativeEnvironment {
  cpu: string
  features: string[]
  /** Physical cores that the process may use. */
  cores: number
  dnnl: string
  highwayTarget: string
  /** Bytes of the machine, what can still be allocated, what this process may hold in all, and what it holds. */
  memoryTotal: number
  memoryAvailable: number
  memoryLimit: number
  memoryHeld: number
  bf16: boolean
  build: string
}

/** What there is of CUDA. `missing` says why nothing can be used of it, or nothing of a device; null: it can. */
export interface NativeCuda {
  /** As CUDA counts: 12040 is 12.4. The driver's is the newest that it runs; 0: there is none. */
  driver: number
  runtime: number
  missing: string | null
  devices: {
    name: string
    /** bytes */
    memory: number
    /** compute capability, like '9.0' */
    capability: string
    multiprocessors: number
    missing: string | null
  }[]
}

export interface NativeAddon {
  environment(): NativeEnvironment
  cuda(): NativeCuda
  createAbortToken(): NativeAbortToken
  /** Stops the compute thread for good; for process exit. */
  shutdown(): void
  readTensorFile(path: string): Promise<NativeTensorFile>
  /**
   * Raw values: Float32Array for F32, Uint16Array for F16 and BF16, Int32Array, BigInt64Array, ..., Uint8Array for
   * BOOL and F8; the blocks of GGUF quantisations come dequantized, as Float32Array.
   */
  readTensor(path: string, name: string): Promise<ArrayBufferView>
  /** A safetensors file, fsynced. */
  writeTensorFile(
    path: string,
    tensors: NativeTensorToWrite[],
    metadata: Record<string, string>,
  ): Promise<void>
  /** A GGUF v3 file, fsynced. */
  writeGgufFile(
    path: string,
    tensors: NativeTensorToWrite[],
    metadata: Record<string, NativeGgufEntry>,
  ): Promise<void>
  loadPolicy(options: {
    config: NativeModelConfig
    /** 'cpu', 'cuda:0', ... */
    device: string
    dtype: DType
    threads: number
    files: string[]
    sources: NativeTensorSource[]
    abort: NativeAbortToken | null
    onProgress: ((loadedBytes: number, totalBytes: number) => void) | null
  }): Promise<NativePolicy>
  /** Normal(0, 0.02) weights from a seed, norms 1, biases 0. */
  initializePolicy(options: {
    config: NativeModelConfig
    device: string
    dtype: DType
    threads: number
    seed: number
    standardDeviation: number
  }): Promise<NativePolicy>
  createLearner(
    policy: NativePolicy,
    options: {
      beta1: number
      beta2: number
      epsilon: number
      weightDecay: number
      activationBudget: number
      /** A linear head that says what a state is worth; default false. */
      valueHead?: boolean
    },
  ): Promise<NativeLearner>
  /** With `repeat: n` among the arguments the result is `seconds` [n] of as many runs after a first one, nothing else. */
  kernels: Record<string, (args: Record<string, unknown>) => Promise<Record<string, ArrayBufferView>>>
}

/** What tests examine of the emulated CUDA device. */
export interface NativeEmulation {
  /** 0 runs warps and lanes in order, another seed in an order of its own, from the next launch on. */
  setSeed(seed: number): void
  /** How many the device has: where there are many, attention shares its pages out, and products take smaller tiles. */
  setMultiprocessors(count: number): void
  /** Whether the launches that follow count the conflicts of shared-memory banks; off at first, since it takes time. */
  countBanks(enabled: boolean): void
  /** By source line, since the last call: wavefronts that accesses need at least, and those that conflicts add. */
  takeBankTotals(): Record<string, { wavefronts: number; conflicts: number }>
  /** Bytes that can be allocated on an emulated device in all. */
  setDeviceMemory(device: number, bytes: number): void
  setCapability(device: number, major: number, minor: number): void
  /** The most shared memory that a block on it can ask for. */
  setSharedMemory(device: number, bytes: number): void
  /** Whether launches are written down and not run, so that sizes that would take hours can be looked at. */
  recordLaunches(enabled: boolean): void
  /** What was written down since the last call, in order. */
  takeLaunches(): { kernel: string; blocks: number; threads: number; sharedBytes: number }[]
  /** What a device of hardware does that fails: every call ends in the same error from now on. */
  loseDevice(device: number): void
  /** What is missing from now on: the driver, all devices, or nothing. */
  hideDevices(reason: 'driver' | 'device' | ''): void
  /** Copies, waits and launches since the last call. */
  takeTraffic(): { toDevice: number; toHost: number; waits: number; launches: number }
  /** Reads device memory from the host, which ends the process. */
  touchDevice(): number
  /** Launches a kernel on host memory. */
  launchOnHost(): void
  /** The report of a kernel with that fault; empty for 'none'. */
  provoke(fault: string): string
  /** a [32, 8], b [32, 4] -> c [32, 4]: one mma.m16n8k16 on the fragments of a warp. */
  mma(a: Float32Array, b: Float32Array): Float32Array
  /** Matrices [4, 8, 8] -> [32, 8]: what ldmatrix.x4 gives each lane. */
  ldmatrix(matrices: Float32Array, transposed: boolean): Float32Array
  /** values [rows, width], rounded to bf16: the rows that the indices name, scattered in reverse order. */
  moveRows(values: Float32Array, indices: Float32Array, width: number): Float32Array
}

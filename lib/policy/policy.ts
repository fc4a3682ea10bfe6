import { type DType, loadNative, type NativeGeneratorStatistics, type NativePolicy } from '../native.ts'
import { callNative, runNative } from '../native-call.ts'
import type { Completion, TokenEvent } from './completion.ts'
import type { DeviceName } from './device.ts'
import { checkDevice } from './device-check.ts'
import { runGenerate } from './generate.ts'
import type { GenerationConfig } from './generation-config.ts'
import {
  type DeviceOptions,
  describePolicy,
  type LoadOptions,
  loadWeights,
  resolveDevice,
  toNativeConfig,
} from './load.ts'
import { checkModelConfig, type ModelConfig } from './model-config.ts'
import { nativePolicyOf, setNativePolicy } from './native-handle.ts'
import { checkTokens, type GenerateRequest, type RequestContext, resolveRequests } from './requests.ts'
import { expect, refuseUnknown, type SamplingOptions, samplingKeys } from './sampling.ts'
import { type SaveType, savePolicy } from './save.ts'
import { Tokenizer } from './tokenizer.ts'

export interface GenerateOptions extends SamplingOptions {
  signal?: AbortSignal
  /** called for every token as it comes, in batches of one decode step */
  onToken?: (event: TokenEvent) => void
  /** called for every completion as it finishes */
  onCompletion?: (completion: Completion) => void
}

export interface SaveOptions {
  /** default: bf16 for a policy that computes in bf16, else f32. f32 keeps the master weights exactly. */
  dtype?: SaveType
  /** largest size of a weight file in bytes; default 5e9 */
  shardBytes?: number
  /** texts that end a completion, for other software (generation_config.json); default: those that it was loaded with */
  stopStrings?: string[]
  signal?: AbortSignal
}

export interface InitializeOptions extends DeviceOptions {
  seed: number
  tokenizer?: Tokenizer
}

interface Parts {
  native: NativePolicy
  device: DeviceName
  config: ModelConfig
  generationConfig: GenerationConfig
  tokenizer: Tokenizer | null
}

/**
 * A language model that samples, scores and can be trained, with its tokenizer.
 *
 * It holds native memory: `dispose()` gives it back, and everything but plain properties is ERR_DISPOSED afterwards.
 * What runs at that time rejects with ERR_DISPOSED, too.
 */
export class Policy {
  readonly config: Readonly<ModelConfig>
  /** Null for a policy without one: its text methods throw ERR_TOKENIZER. */
  readonly tokenizer: Tokenizer | null
  readonly device: DeviceName
  /** The type that it computes in. */
  readonly dtype: DType
  readonly threads: number
  /** Whether this machine gives a token the same log-prob, bit for bit, however it is computed (tried at load). */
  readonly exact: boolean
  /** Tokens that end a completion. */
  readonly endTokenIds: readonly number[]
  /** Texts that end its completions, as generation_config.json names them. `generate` stops at those that it is given. */
  readonly stopStrings: readonly string[]
  readonly #generationConfig: GenerationConfig

  private constructor({ native, device, config, generationConfig, tokenizer }: Parts) {
    this.config = config
    this.device = device
    this.tokenizer = tokenizer
    this.dtype = native.dtype
    this.threads = native.threads
    this.exact = native.exact
    this.stopStrings = generationConfig.stopStrings
    this.#generationConfig = generationConfig
    const named = [config.eosTokenIds, generationConfig.eosTokenIds]
    this.endTokenIds = tokenizer ? tokenizer.endTokenIds(...named) : [...new Set(named.flat())]
    setNativePolicy(this, native)
    if (tokenizer) {
      const { bytes, offsets } = tokenizer.tokenBytes(config.vocabSize)
      native.setTokenBytes(bytes, offsets)
    }
  }

  /**
   * Loads a folder in Hugging Face layout, a .gguf file, or a model of the hub; an existing path wins over a hub id.
   * @throws SsrlError ERR_IO, ERR_MODEL_FORMAT, ERR_TOKENIZER, ERR_NETWORK, ERR_NO_DEVICE or ERR_OUT_OF_MEMORY; the
   * signal's reason after an abort
   */
  static async load(source: string, options: LoadOptions = {}): Promise<Policy> {
    options.signal?.throwIfAborted()
    const device = resolveDevice(options)
    const { config, generationConfig, tokenizer, ...rest } = await describePolicy(source, options)
    const native = await loadWeights({ config, generationConfig, tokenizer, ...rest }, device, options)
    return new Policy({ native, device: device.device, config, generationConfig, tokenizer })
  }

  /**
   * A policy with random weights: matrices normal with `config.initializerRange`, norms 1, biases 0. Equal seeds give
   * equal weights.
   */
  static async initialize(config: ModelConfig, options: InitializeOptions): Promise<Policy> {
    expect(typeof config === 'object' && config !== null, 'a ModelConfig', 'config', config)
    expect(typeof options === 'object' && options !== null, 'an object', 'options', options)
    const { seed, tokenizer = null, ...rest } = options
    refuseUnknown(rest, ['device', 'dtype', 'threads'], 'option')
    expect(Number.isSafeInteger(seed) && seed >= 0, 'an integer of at least 0', 'seed', seed)
    expect(tokenizer === null || tokenizer instanceof Tokenizer, 'a Tokenizer', 'tokenizer', tokenizer)
    const checked = checkModelConfig({ ...config })
    tokenizer?.checkVocabulary(checked.vocabSize, checked.eosTokenIds)
    const { device, dtype, threads } = resolveDevice(rest)
    await checkDevice(device, dtype)
    const standardDeviation = checked.initializerRange
    const nativeConfig = toNativeConfig(checked)
    const native = await runNative(() =>
      loadNative().initializePolicy({
        config: nativeConfig,
        device,
        dtype,
        threads,
        seed,
        standardDeviation,
      }),
    )
    const generationConfig = { eosTokenIds: [...checked.eosTokenIds], stopStrings: [], other: {} }
    return new Policy({ native, device, config: checked, generationConfig, tokenizer })
  }

  get disposed(): boolean {
    try {
      nativePolicyOf(this)
      return false
    } catch {
      return true
    }
  }

  /**
   * Samples `n` completions of every request, all at once; calls that overlap share the batch.
   *
   * Sample j of a request with seed s depends on (s, j) and the request alone. A request without a seed takes one from
   * `options.seed` and its index; without that, from the system's random numbers.
   *
   * @returns the completions request by request, `n` each
   * @throws SsrlError ERR_INVALID_ARG, ERR_TOKENIZER, ERR_OUT_OF_MEMORY (a single sequence outgrows the cache's budget),
   * ERR_NON_FINITE or ERR_DISPOSED; the signal's reason after an abort. Where that is an object it carries what had
   * finished as `completions`.
   */
  async generate(requests: GenerateRequest[], options: GenerateOptions = {}): Promise<Completion[]> {
    const native = nativePolicyOf(this)
    expect(typeof options === 'object' && options !== null, 'an object', 'options', options)
    const { signal, onToken, onCompletion, ...sampling } = options
    refuseUnknown(sampling, samplingKeys, 'option')
    for (const [name, callback] of Object.entries({ onToken, onCompletion })) {
      expect(callback === undefined || typeof callback === 'function', 'a function', name, callback)
    }
    const resolved = resolveRequests(requests, sampling, this.#context)
    const { tokenizer, endTokenIds } = this
    return runGenerate(native, { requests: resolved, tokenizer, endTokenIds, signal, onToken, onCompletion })
  }

  /**
   * Log-probs and entropies of given sequences, in nats. A beginning that neighbours have in common is computed once.
   * @returns for a sequence of T tokens T - 1 values each: value t belongs to token t + 1
   */
  async score(
    sequences: Int32Array[],
    options: { temperature?: number; signal?: AbortSignal } = {},
  ): Promise<{ logProbs: Float32Array; entropies: Float32Array }[]> {
    const native = nativePolicyOf(this)
    const { temperature = 1, signal, ...rest } = options
    refuseUnknown(rest, ['temperature', 'signal'], 'option')
    expect(Number.isFinite(temperature) && temperature > 0, 'a number above 0', 'temperature', temperature)
    expect(Array.isArray(sequences), 'an array of Int32Arrays', 'sequences', sequences)
    sequences.forEach((sequence, i) => {
      checkTokens(sequence, `sequences[${i}]`, this.#context, 0)
    })
    if (sequences.length === 0) return []
    const { tokens, offsets } = flatten(sequences)
    const flat = await runNative((abort) => native.score(tokens, offsets, temperature, abort), signal)
    return sequences.map((sequence, i) => {
      const start = offsets[i]! - i
      const end = start + sequence.length - 1
      return { logProbs: flat.logProbs.slice(start, end), entropies: flat.entropies.slice(start, end) }
    })
  }

  /** Logits after every token: [tokens, vocabSize], row-major. For small inputs: the whole matrix is made. */
  async logits(tokens: Int32Array): Promise<Float32Array> {
    const native = nativePolicyOf(this)
    checkTokens(tokens, 'tokens', this.#context, 0)
    return runNative(() => native.logits(tokens))
  }

  /**
   * A copy that shares the weights' memory until one of the two is trained. A frozen one samples and scores with the
   * same bits, but holds its matrices in `dtype` only: a bf16 policy takes 2 bytes a parameter in place of 6. It can't
   * be trained or written (ERR_INVALID_ARG), and what it saves and reads is rounded to `dtype`.
   */
  async clone(options: { frozen?: boolean } = {}): Promise<Policy> {
    const native = nativePolicyOf(this)
    const { frozen = false, ...rest } = options
    refuseUnknown(rest, ['frozen'], 'option')
    expect(typeof frozen === 'boolean', 'a boolean', 'frozen', frozen)
    const copy = await runNative(() => native.clone(frozen))
    const { config, device, tokenizer } = this
    return new Policy({ native: copy, device, config, tokenizer, generationConfig: this.#generationConfig })
  }

  /**
   * Writes the policy in Hugging Face layout: config, generation config, tokenizer and safetensors. The folder appears
   * complete or not at all; one that was there is replaced.
   * @throws SsrlError ERR_IO, for example where no space is left on the device
   */
  async save(directory: string, options: SaveOptions = {}): Promise<void> {
    const native = nativePolicyOf(this)
    expect(typeof directory === 'string' && directory !== '', 'a path', 'directory', directory)
    const { dtype = this.dtype, shardBytes = 5e9, stopStrings = this.stopStrings, signal, ...rest } = options
    refuseUnknown(rest, ['dtype', 'shardBytes', 'stopStrings', 'signal'], 'option')
    expect(['f32', 'bf16', 'f16'].includes(dtype), "'f32', 'bf16' or 'f16'", 'dtype', dtype)
    expect(
      Number.isFinite(shardBytes) && shardBytes > 0,
      'a number of bytes above 0',
      'shardBytes',
      shardBytes,
    )
    const { config, tokenizer } = this
    const generationConfig = {
      ...this.#generationConfig,
      eosTokenIds: [...this.endTokenIds],
      stopStrings: [...stopStrings],
    }
    await savePolicy({ native, config, generationConfig, tokenizer }, directory, {
      dtype,
      shardBytes,
      signal,
    })
  }

  /** Names and shapes of the parameters, as in Hugging Face files. */
  parameters(): { name: string; shape: number[] }[] {
    const native = nativePolicyOf(this)
    return callNative(() => native.parameters())
  }

  /** A copy of one parameter's f32 values, row-major. */
  async readParameter(name: string): Promise<Float32Array> {
    const native = nativePolicyOf(this)
    return runNative(() => native.readParameter(name))
  }

  /** Overwrites one parameter. */
  async writeParameter(name: string, values: Float32Array): Promise<void> {
    const native = nativePolicyOf(this)
    return runNative(() => native.writeParameter(name, values))
  }

  /** Bytes that keys and values may take; default: 40 % of what is free at the first call. Beyond it, rows wait. */
  setCacheBudget(bytes: number): void {
    const native = nativePolicyOf(this)
    expect(Number.isSafeInteger(bytes) && bytes >= 0, 'a number of bytes', 'bytes', bytes)
    callNative(() => native.setCacheBudget(bytes))
  }

  /** What the generator has done so far. */
  async generatorStatistics(): Promise<NativeGeneratorStatistics> {
    const native = nativePolicyOf(this)
    return runNative(() => native.generatorStatistics())
  }

  /** Gives the native memory back; resolves when that has happened. */
  async dispose(): Promise<void> {
    if (this.disposed) return
    const native = nativePolicyOf(this)
    setNativePolicy(this, null)
    await runNative(() => native.dispose())
  }

  [Symbol.dispose](): void {
    void this.dispose()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  get #context(): RequestContext {
    const { vocabSize, maxPositions } = this.config
    return { tokenizer: this.tokenizer, vocabSize, maxPositions }
  }
}

function flatten(sequences: readonly Int32Array[]): { tokens: Int32Array; offsets: Int32Array } {
  const offsets = new Int32Array(sequences.length + 1)
  sequences.forEach((sequence, i) => {
    offsets[i + 1] = offsets[i]! + sequence.length
  })
  const tokens = new Int32Array(offsets[sequences.length]!)
  sequences.forEach((sequence, i) => {
    tokens.set(sequence, offsets[i]!)
  })
  return { tokens, offsets }
}

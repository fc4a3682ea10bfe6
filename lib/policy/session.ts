import { SsrlError } from '../errors.ts'
import type { NativeSession } from '../native.ts'
import { callNative, runNative } from '../native-call.ts'
import { encodePrompt, type Message } from './chat-template.ts'
import { type Completion, type TokenEvent, toCompletion } from './completion.ts'
import { guarded } from './generate.ts'
import { nativePolicyOf } from './native-handle.ts'
import type { Policy } from './policy.ts'
import { checkTokens, refuseStopsWithoutTokenizer } from './requests.ts'
import {
  expect,
  nativeSampling,
  refuseUnknown,
  resolveSampling,
  resolveSeed,
  type SamplingOptions,
  samplingKeys,
} from './sampling.ts'
import type { TextSegment } from './tokenizer.ts'

export interface SessionGenerateOptions extends SamplingOptions {
  /** second half of the random key, the first being the seed: forks of one session differ by it; default 0 */
  sampleIndex?: number
  /** called for every token as it comes; its `requestIndex` and `sampleIndex` are 0 */
  onToken?: (event: TokenEvent) => void
  /** Added before, as `append` does, but in the same call. */
  append?: string | TextSegment[] | Int32Array
  signal?: AbortSignal
}

/**
 * One trajectory over the key-value cache: what is generated and what is appended stays computed, so that going on costs
 * the new tokens only. One call at a time; a session that rests may lose its pages to others and is then computed again,
 * with the same result.
 */
export class Session {
  readonly #policy: Policy
  readonly #native: NativeSession
  #tokens: Int32Array
  #isClosed = false

  private constructor(policy: Policy, native: NativeSession, tokens: Int32Array) {
    this.#policy = policy
    this.#native = native
    this.#tokens = tokens
  }

  /** Begins with a prompt: a text, messages, or token ids, as in `Policy.generate`. */
  static async open(
    policy: Policy,
    prompt: string | Message[] | TextSegment[] | Int32Array,
  ): Promise<Session> {
    const native = nativePolicyOf(policy)
    const tokens = prompt instanceof Int32Array ? prompt.slice() : encodePrompt(textTokenizer(policy), prompt)
    checkTokens(tokens, 'prompt', contextOf(policy), 1)
    return new Session(policy, await runNative(() => native.openSession(tokens)), tokens)
  }

  /** All tokens so far: the prompt, what was generated, what was appended. */
  get tokens(): Int32Array {
    return this.#tokens.slice()
  }

  get length(): number {
    return this.#tokens.length
  }

  /** n sessions that go on from here, on the same pages. */
  async fork(n: number): Promise<Session[]> {
    const native = this.#open()
    expect(Number.isInteger(n) && n >= 1 && n <= 2 ** 20, 'an integer from 1 to 2^20', 'n', n)
    const tokens = this.#tokens
    const forks = await runNative(() => native.fork(n))
    return forks.map((fork) => new Session(this.#policy, fork, tokens))
  }

  /**
   * Goes on until a stop string, an end token or the limit. The completion's `promptTokens` are all tokens before it.
   * An abort rejects with the signal's reason and leaves the session as it was.
   */
  async generate(options: SessionGenerateOptions = {}): Promise<Completion> {
    const native = this.#open()
    expect(typeof options === 'object' && options !== null, 'an object', 'options', options)
    const { signal, sampleIndex = 0, seed, onToken, append, ...sampling } = options
    refuseUnknown(sampling, samplingKeys, 'option')
    const isIndex = Number.isInteger(sampleIndex) && sampleIndex >= 0 && sampleIndex < 2 ** 32
    expect(isIndex, 'an integer in [0, 2^32)', 'sampleIndex', sampleIndex)
    expect(onToken === undefined || typeof onToken === 'function', 'a function', 'onToken', onToken)
    const resolved = resolveSampling(sampling)
    refuseStopsWithoutTokenizer(resolved.stop, contextOf(this.#policy))
    const { endTokenIds, tokenizer } = this.#policy
    const added = append === undefined ? new Int32Array(0) : this.#toTokens(append)
    const key = { ...nativeSampling(resolved, resolveSeed(seed)), firstSample: sampleIndex }
    const request = { ...key, append: added }
    const prompt = join(this.#tokens, added)
    const found = await guarded({ tokenizer, endTokenIds, signal, onToken }, async (abort, onTokens) => {
      const written = await native.generate(request, Int32Array.from(endTokenIds), abort, onTokens)
      // Here already: a callback that threw at the very end does not undo what was generated.
      this.#tokens = join(prompt, written.tokens)
      return written
    })
    const completion = toCompletion(found, prompt, { tokenizer, endTokenIds })
    return { ...completion, sampleIndex }
  }

  /**
   * Adds text from outside. A string holds no control token, whatever it says; segments say which parts are trusted.
   */
  async append(content: string | TextSegment[] | Int32Array): Promise<void> {
    const native = this.#open()
    const tokens = this.#toTokens(content)
    if (tokens.length === 0) return
    await runNative(() => native.append(tokens))
    this.#tokens = join(this.#tokens, tokens)
  }

  /** Gives the pages back. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    callNative(() => this.#native.close())
  }

  dispose(): void {
    this.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  #open(): NativeSession {
    if (this.#isClosed) throw new SsrlError('ERR_DISPOSED', 'This session was closed')
    nativePolicyOf(this.#policy)
    return this.#native
  }

  #toTokens(content: string | TextSegment[] | Int32Array): Int32Array {
    const tokens = content instanceof Int32Array ? content.slice() : this.#encode(content)
    if (tokens.length === 0) return tokens
    const context = contextOf(this.#policy)
    checkTokens(tokens, 'content', { ...context, maxPositions: context.maxPositions - this.length }, 0)
    return tokens
  }

  #encode(content: string | TextSegment[]): Int32Array {
    const isContent = typeof content === 'string' || Array.isArray(content)
    expect(isContent, 'a string, text segments or an Int32Array', 'content', content)
    const segments = typeof content === 'string' ? [{ text: content, untrusted: true }] : content
    return textTokenizer(this.#policy).encodeSegments(segments, { addSpecialTokens: false })
  }
}

function textTokenizer(policy: Policy) {
  if (policy.tokenizer) return policy.tokenizer
  throw new SsrlError('ERR_TOKENIZER', 'Text needs a tokenizer, and this policy has none: pass an Int32Array')
}

function contextOf({ tokenizer, config }: Policy) {
  return { tokenizer, vocabSize: config.vocabSize, maxPositions: config.maxPositions }
}

function join(first: Int32Array, second: Int32Array): Int32Array {
  const joined = new Int32Array(first.length + second.length)
  joined.set(first)
  joined.set(second, first.length)
  return joined
}

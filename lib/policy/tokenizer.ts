import { SsrlError } from '../errors.ts'
import type { Range } from './added-tokens.ts'
import {
  byteLevelToBytes,
  joinTokenBytes,
  sentencePieceToBytes,
  TextStream,
  type TokenBytes,
} from './byte-decoder.ts'
import type { GgufMetadata } from './gguf-config.ts'
import { tokenizerFilesFromGguf } from './gguf-tokenizer.ts'
import {
  findChatTemplate,
  parseJsonObject,
  readTokenizerFiles,
  type TokenizerFiles,
  writeTokenizerFiles,
} from './tokenizer-files.ts'
import { flatten, TokenizerPipeline } from './tokenizer-pipeline.ts'

/** A stretch of a prompt; what a user or a document wrote is untrusted and never becomes a control token. */
export interface TextSegment {
  text: string
  untrusted?: boolean
}

export interface EncodeOptions {
  /** put BOS (or what the tokenizer's post-processor says) around the text, unless it is there already; default true */
  addSpecialTokens?: boolean
}

/** Text to token ids and back. Ids come from @huggingface/tokenizers' components; decoding is by an id → bytes table. */
export class Tokenizer {
  readonly bosTokenId: number | undefined
  readonly eosTokenId: number | undefined
  readonly padTokenId: number | undefined
  /** Jinja source, or null */
  readonly chatTemplate: string | null
  /** one more than the largest id */
  readonly vocabSize: number
  readonly #files: TokenizerFiles
  readonly #pipeline: TokenizerPipeline
  readonly #bytes: TokenBytes
  readonly #isToken: Uint8Array
  readonly #special: Set<number>
  readonly #prefix: number[]
  readonly #suffix: number[]
  readonly #stripsPrefixSpace: boolean

  /** @param files text of tokenizer.json and of what belongs to it, by file name */
  constructor(files: TokenizerFiles) {
    const json = parseJsonObject(files.get('tokenizer.json') ?? '', 'tokenizer.json')
    const config = parseJsonObject(files.get('tokenizer_config.json') ?? '{}', 'tokenizer_config.json')
    const specialMap = parseJsonObject(
      files.get('special_tokens_map.json') ?? '{}',
      'special_tokens_map.json',
    )
    this.#files = files
    this.#pipeline = new TokenizerPipeline(json)
    const idOf = (name: string) => this.#namedToken(config[name] ?? specialMap[name])
    this.bosTokenId = idOf('bos_token')
    this.eosTokenId = idOf('eos_token')
    this.padTokenId = idOf('pad_token')
    this.chatTemplate = findChatTemplate(files)
    const { prefix, suffix } = this.#specialTokens(config)
    this.#prefix = prefix
    this.#suffix = suffix
    this.#special = new Set(
      this.#pipeline.addedTokens.filter((token) => token.special).map((token) => token.id),
    )
    const decoders = flatten(json.decoder as never).map((component) => component.type)
    const tokens = this.#decodeVocabulary(decoders.includes('ByteLevel'))
    this.vocabSize = tokens.length
    this.#bytes = joinTokenBytes(tokens, tokens.length)
    this.#isToken = Uint8Array.from(tokens, (bytes) => (bytes ? 1 : 0))
    this.#stripsPrefixSpace = decoders.includes('Strip') || decoders.includes('Metaspace')
  }

  /** The tokenizer of a Hugging Face folder, or null when it has no tokenizer.json. */
  static async fromFolder(directory: string): Promise<Tokenizer | null> {
    const files = await readTokenizerFiles(directory)
    return files && new Tokenizer(files)
  }

  /**
   * The tokenizer that a GGUF file carries, or null when it carries none.
   * @throws SsrlError ERR_MODEL_FORMAT naming a tokenizer model or pre-tokenizer that is not implemented
   */
  static fromGguf(metadata: GgufMetadata): Tokenizer | null {
    const files = tokenizerFilesFromGguf(metadata)
    return files && new Tokenizer(files)
  }

  get hasChatTemplate() {
    return this.chatTemplate !== null
  }

  get bosToken() {
    return this.#content(this.bosTokenId)
  }

  get eosToken() {
    return this.#content(this.eosTokenId)
  }

  /** The tokenizer.json's object, the tokenizer_config.json's and the rest, as text by file name. */
  get files(): ReadonlyMap<string, string> {
    return this.#files
  }

  /** Whether `encode` puts BOS before a text. */
  get addsBos() {
    return this.bosTokenId !== undefined && this.#prefix.includes(this.bosTokenId)
  }

  get addedTokens() {
    return this.#pipeline.addedTokens
  }

  /** Every id that ends a completion: the tokenizer's own EOS and those that the model's configs name. */
  endTokenIds(...others: readonly (readonly number[])[]): number[] {
    const own = this.eosTokenId === undefined ? [] : [this.eosTokenId]
    return [...new Set([...others.flat(), ...own])]
  }

  /** The id of exactly this token, added or not; in the vocabulary's own spelling. */
  tokenId(content: string): number | undefined {
    return this.#pipeline.tokenId(content)
  }

  /** @param options.allowAddedTokens false: `<|im_end|>` in the text is ordinary text; default true */
  encode(text: string, options: EncodeOptions & { allowAddedTokens?: boolean } = {}): Int32Array {
    return this.encodeSegments([{ text, untrusted: options.allowAddedTokens === false }], options)
  }

  /**
   * Encodes segments as one text. Added tokens are found in trusted stretches only; everything else is split and merged
   * across the borders, so that benign text gets the same ids however it is cut.
   */
  encodeSegments(segments: readonly TextSegment[], options: EncodeOptions = {}): Int32Array {
    const text = segments.map((segment) => checkText(segment.text)).join('')
    const ids = this.#pipeline.encode(text, trustedRanges(segments))
    if (options.addSpecialTokens === false) return Int32Array.from(ids)
    const startsWithPrefix = this.#prefix.every((id, i) => ids[i] === id)
    return Int32Array.from([...(startsWithPrefix ? [] : this.#prefix), ...ids, ...this.#suffix])
  }

  /** Text of ids; bytes that are no UTF-8 become U+FFFD. @throws SsrlError ERR_INVALID_ARG for an id that is no token id */
  decode(ids: ArrayLike<number>, options: { skipSpecial?: boolean } = {}): string {
    const kept = Array.from(ids).filter((id) => !(options.skipSpecial && this.#special.has(id)))
    const stream = new TextStream()
    const text = kept.map((id) => stream.push(this.bytesOf(id))).join('') + stream.end()
    // such tokenizers put a space before every text, which is no part of it
    return this.#stripsPrefixSpace && text.startsWith(' ') ? text.slice(1) : text
  }

  /** Raw bytes of one token; none for an id of the model's padded vocabulary that has no token. */
  bytesOf(id: number): Uint8Array {
    if (!Number.isInteger(id) || id < 0) {
      throw new SsrlError('ERR_INVALID_ARG', `Expected a token id but received ${id}`)
    }
    const { bytes, offsets } = this.#bytes
    return id < this.vocabSize ? bytes.subarray(offsets[id], offsets[id + 1]) : new Uint8Array(0)
  }

  isSpecial(id: number) {
    return this.#special.has(id)
  }

  /** Decodes token by token, as sampled: a stream's pieces joined are the bytes' text, a leading space kept. */
  createStream(options: { skipSpecial?: boolean } = {}): { push(id: number): string; end(): string } {
    const stream = new TextStream()
    const isSkipped = (id: number) => options.skipSpecial === true && this.#special.has(id)
    return {
      push: (id) => (isSkipped(id) ? '' : stream.push(this.bytesOf(id))),
      end: () => stream.end(),
    }
  }

  /** The bytes of every id below `vocabSize`, the model's vocabulary (some are padded). */
  tokenBytes(vocabSize = this.vocabSize): TokenBytes {
    const { bytes, offsets } = this.#bytes
    const padded = new Int32Array(vocabSize + 1).fill(bytes.length)
    padded.set(offsets.subarray(0, vocabSize + 1))
    return { bytes, offsets: padded }
  }

  /**
   * @param vocabSize rows of the model's embedding
   * @throws SsrlError ERR_TOKENIZER when tokenizer and model can't belong together
   */
  checkVocabulary(vocabSize: number, endTokenIds: readonly number[] = []) {
    const refuse = (message: string): never => {
      throw new SsrlError('ERR_TOKENIZER', `${message}: tokenizer and model don't belong together`)
    }
    if (this.vocabSize > vocabSize) {
      refuse(`The tokenizer has ids up to ${this.vocabSize - 1}, the model ${vocabSize} of them`)
    }
    const missing = vocabSize - this.#isToken.reduce((sum, flag) => sum + flag, 0)
    // real models pad their vocabulary to a multiple of a power of two, never further
    if (missing > Math.max(127, 0.05 * vocabSize)) {
      refuse(`The tokenizer lacks ${missing} of the ${vocabSize} ids that the model has`)
    }
    const unknown = endTokenIds.find((id) => !this.#isToken[id])
    if (unknown !== undefined) refuse(`The model ends with token ${unknown}, which the tokenizer lacks`)
  }

  /** Writes tokenizer.json and what belongs to it into a folder. */
  async save(directory: string) {
    await writeTokenizerFiles(directory, this.#files)
  }

  #content(id: number | undefined) {
    return id === undefined ? undefined : new TextDecoder().decode(this.bytesOf(id))
  }

  /** A token named by tokenizer_config.json or special_tokens_map.json: a string, or an object with its content. */
  #namedToken(value: unknown): number | undefined {
    const content =
      typeof value === 'object' && value !== null ? (value as { content?: unknown }).content : value
    return typeof content === 'string' ? this.#pipeline.tokenId(content) : undefined
  }

  /** What surrounds a text; `add_bos_token` in tokenizer_config.json has the last word on BOS, as in transformers. */
  #specialTokens(config: Record<string, unknown>) {
    const { prefix, suffix } = this.#pipeline.specialTokens()
    const bos = this.bosTokenId
    if (bos === undefined) return { prefix, suffix }
    if (config.add_bos_token === true && !prefix.includes(bos)) return { prefix: [bos, ...prefix], suffix }
    if (config.add_bos_token === false) return { prefix: prefix.filter((id) => id !== bos), suffix }
    return { prefix, suffix }
  }

  #decodeVocabulary(isByteLevel: boolean) {
    const toBytes = isByteLevel ? byteLevelToBytes : (token: string) => sentencePieceToBytes(token)
    const tokens: (Uint8Array | undefined)[] = []
    this.#pipeline.vocabulary.forEach((token, id) => {
      if (token !== undefined) tokens[id] = toBytes(token)
    })
    for (const { id, content } of this.#pipeline.addedTokens) tokens[id] = new TextEncoder().encode(content)
    return tokens
  }
}

function trustedRanges(segments: readonly TextSegment[]): Range[] {
  const ranges: [number, number][] = []
  let at = 0
  for (const { text, untrusted } of segments) {
    const last = ranges.at(-1)
    if (!untrusted && last && last[1] === at) last[1] += text.length
    else if (!untrusted && text.length > 0) ranges.push([at, at + text.length])
    at += text.length
  }
  return ranges
}

function checkText(text: unknown): string {
  if (typeof text === 'string') return text
  throw new SsrlError('ERR_INVALID_ARG', `Expected a string to encode but received ${typeof text}`)
}

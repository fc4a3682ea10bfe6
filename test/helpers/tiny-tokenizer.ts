import { bytesToByteLevel } from '../../lib/policy/byte-decoder.ts'
import type { TokenizerFiles } from '../../lib/policy/tokenizer-files.ts'

export interface TinyAddedToken {
  content: string
  special?: boolean
  normalized?: boolean
  lstrip?: boolean
  rstrip?: boolean
  single_word?: boolean
}

export interface TinyOptions {
  /** pairs to merge, as text */
  merges?: [string, string][]
  added?: TinyAddedToken[]
  normalizer?: object | null
  postProcessor?: object | null
  preTokenizer?: object
  ignoreMerges?: boolean
  /** further words of the vocabulary */
  words?: string[]
  config?: Record<string, unknown>
}

/** Files of a byte-level BPE tokenizer: ids 0-255 are the bytes, then come merges, words and added tokens. */
export function tinyTokenizerFiles(options: TinyOptions = {}): TokenizerFiles {
  const spell = (text: string) => bytesToByteLevel(Buffer.from(text))
  const bytes = Array.from({ length: 256 }, (_, byte) => bytesToByteLevel(Uint8Array.of(byte)))
  const merges = (options.merges ?? []).map(([a, b]) => [spell(a), spell(b)] as const)
  const tokens = [...bytes, ...merges.map(([a, b]) => a + b), ...(options.words ?? []).map(spell)]
  const vocab = Object.fromEntries([...new Set(tokens)].map((token, id) => [token, id]))
  let next = Object.keys(vocab).length
  const added = (options.added ?? []).map((token) => ({
    id: Object.hasOwn(vocab, token.content) ? vocab[token.content]! : next++,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: false,
    ...token,
  }))
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: options.normalizer ?? null,
    pre_tokenizer: options.preTokenizer ?? {
      type: 'ByteLevel',
      add_prefix_space: false,
      trim_offsets: true,
      use_regex: true,
    },
    post_processor: options.postProcessor ?? null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: options.ignoreMerges ?? false,
      vocab,
      merges: merges.map(([a, b]) => `${a} ${b}`),
    },
  }
  return new Map([
    ['tokenizer.json', JSON.stringify(json)],
    ['tokenizer_config.json', JSON.stringify(options.config ?? {})],
  ])
}

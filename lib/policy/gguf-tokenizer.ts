import { SsrlError } from '../errors.ts'
import { type GgufEntry, type GgufMetadata, GgufReader, type GgufValue } from './gguf-config.ts'
import type { Tokenizer } from './tokenizer.ts'
import { parseJsonObject, type TokenizerFiles } from './tokenizer-files.ts'
import { flatten, type TokenizerJson } from './tokenizer-pipeline.ts'

/** Token types of the format (ggml's llama_token_type). */
const tokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

const contractions = "'s|'t|'re|'ve|'m|'ll|'d"
const gpt2Split = `${contractions}| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`
const wordSplit = (digits: string) =>
  `(?i:${contractions})|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`

/** How a pre-tokenizer cuts text into words: these patterns one after the other. */
interface PreTokenizer {
  splits: string[]
  /** the vocabulary's own entry for a whole word goes before merging */
  ignoreMerges?: boolean
  /** Unicode form that models with this pre-tokenizer bring text into first; llama.cpp leaves this out */
  normalizer?: 'NFC'
  addsBos?: boolean
}

const preTokenizers: Record<string, PreTokenizer> = {
  smollm: { splits: ['\\p{N}', gpt2Split] },
  'llama-bpe': { splits: [wordSplit('\\p{N}{1,3}')], ignoreMerges: true, addsBos: true },
  qwen2: { splits: [wordSplit('\\p{N}')], normalizer: 'NFC' },
  'gpt-2': { splits: [gpt2Split] },
  default: { splits: ['[\\p{P}\\$\\+<=>\\^~\\|]+', gpt2Split, '\\p{N}+', '[0-9][0-9][0-9]'] },
}

/** Other names under which llama.cpp does the same. */
const aliases: Record<string, string> = {
  llama3: 'llama-bpe',
  'llama-v3': 'llama-bpe',
  'deepseek-r1-qwen': 'qwen2',
}

/**
 * Builds the files of a Hugging Face tokenizer from a GGUF's metadata; null when it carries no tokenizer.
 * @throws SsrlError ERR_MODEL_FORMAT naming a tokenizer model or pre-tokenizer that is not implemented
 */
export function tokenizerFilesFromGguf(metadata: GgufMetadata): TokenizerFiles | null {
  const read = new GgufReader(metadata, 'tokenizer.ggml.')
  const model = read.string('model')
  if (model === undefined || model === 'none') return null
  if (model !== 'gpt2') refuse('model', "'gpt2' (byte-level BPE)", model)
  const pre = read.string('pre') ?? 'default'
  const preTokenizer = findPreTokenizer(pre)
  if (!preTokenizer)
    refuse('pre', `one of ${[...Object.keys(preTokenizers), ...Object.keys(aliases)].join(', ')}`, pre)
  const tokens = strings(read, 'tokens')
  const types = read.list('token_type')
  const special = (key: string) => {
    const id = read.id(key)
    if (id !== undefined && id >= tokens.length) refuse(key, `an id below ${tokens.length}`, id)
    return id === undefined ? undefined : tokens[id]
  }
  const bos = special('bos_token_id')
  const addsBos = (read.boolean('add_bos_token') ?? preTokenizer!.addsBos ?? false) && bos !== undefined
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: addedTokens(tokens, types),
    normalizer: preTokenizer!.normalizer ? { type: preTokenizer!.normalizer } : null,
    pre_tokenizer: splitSequence(preTokenizer!.splits),
    post_processor: addsBos ? bosTemplate(bos!, tokens.indexOf(bos!)) : null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: bpeModel(tokens, types, strings(read, 'merges'), preTokenizer!.ignoreMerges === true),
  }
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: bos,
    eos_token: special('eos_token_id'),
    pad_token: special('padding_token_id'),
    unk_token: special('unknown_token_id'),
    add_bos_token: addsBos,
    clean_up_tokenization_spaces: false,
    chat_template: new GgufReader(metadata, 'tokenizer.').string('chat_template'),
  }
  return new Map([
    ['tokenizer.json', JSON.stringify(json)],
    ['tokenizer_config.json', JSON.stringify(config, null, 2)],
  ])
}

/**
 * The tokenizer's part of a GGUF's metadata.
 * @param vocabSize rows of the model's embedding; ids without a token become padding
 * @throws SsrlError ERR_TOKENIZER when the tokenizer is not byte-level BPE with a pre-tokenizer that has a name there
 */
export function ggufTokenizerMetadata(
  tokenizer: Tokenizer,
  vocabSize: number,
  endTokenIds: readonly number[],
): Record<string, GgufEntry> {
  const json = parseJsonObject(tokenizer.files.get('tokenizer.json')!, 'tokenizer.json')
  const { tokens, types } = tokenList(json, vocabSize)
  const merges = (json.model as { merges: (string | string[])[] }).merges
  const entries: Record<string, GgufEntry> = {
    'tokenizer.ggml.model': { type: 'string', value: 'gpt2' },
    'tokenizer.ggml.pre': { type: 'string', value: namePreTokenizer(json) },
    'tokenizer.ggml.tokens': { type: 'string[]', value: tokens },
    'tokenizer.ggml.token_type': { type: 'i32[]', value: types },
    'tokenizer.ggml.merges': {
      type: 'string[]',
      value: merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' '))),
    },
    'tokenizer.ggml.add_bos_token': { type: 'bool', value: tokenizer.addsBos },
  }
  const ids = {
    bos_token_id: tokenizer.bosTokenId,
    eos_token_id: endTokenIds[0] ?? tokenizer.eosTokenId,
    eot_token_id: endTokenIds[1],
    eom_token_id: endTokenIds[2],
    padding_token_id: tokenizer.padTokenId,
  }
  for (const [key, value] of Object.entries(ids)) {
    if (value !== undefined) entries[`tokenizer.ggml.${key}`] = { type: 'u32', value }
  }
  if (tokenizer.chatTemplate !== null) {
    entries['tokenizer.chat_template'] = { type: 'string', value: tokenizer.chatTemplate }
  }
  return entries
}

function findPreTokenizer(name: string): PreTokenizer | undefined {
  const known = Object.hasOwn(aliases, name) ? aliases[name]! : name
  return Object.hasOwn(preTokenizers, known) ? preTokenizers[known] : undefined
}

function strings(read: GgufReader, key: string): string[] {
  const list = read.list(key) ?? refuse(key, 'a list of strings', undefined)
  return Array.from(list, (item) =>
    typeof item === 'string' ? item : refuse(key, 'a list of strings', item),
  )
}

function addedTokens(tokens: string[], types: ArrayLike<GgufValue> | undefined) {
  return tokens.flatMap((content, id) => {
    const type = Number(types?.[id] ?? tokenType.normal)
    const isAdded = type === tokenType.control || type === tokenType.userDefined || type === tokenType.unknown
    if (!isAdded || content === '') return []
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false }
    return [{ id, content, ...flags, special: type !== tokenType.userDefined }]
  })
}

function bpeModel(
  tokens: string[],
  types: ArrayLike<GgufValue> | undefined,
  merges: string[],
  ignoreMerges: boolean,
): TokenizerJson {
  const isUsed = (id: number) => Number(types?.[id] ?? tokenType.normal) !== tokenType.unused
  return {
    type: 'BPE',
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: ignoreMerges,
    vocab: Object.fromEntries(tokens.flatMap((token, id) => (isUsed(id) ? [[token, id]] : []))),
    merges,
  }
}

function splitSequence(patterns: string[]) {
  const split = (pattern: string) => ({
    type: 'Split',
    pattern: { Regex: pattern },
    behavior: 'Isolated',
    invert: false,
  })
  const bytes = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }
  return { type: 'Sequence', pretokenizers: [...patterns.map(split), bytes] }
}

function bosTemplate(bos: string, id: number) {
  const token = { SpecialToken: { id: bos, type_id: 0 } }
  const sequence = (name: string, type: number) => ({ Sequence: { id: name, type_id: type } })
  return {
    type: 'TemplateProcessing',
    single: [token, sequence('A', 0)],
    pair: [token, sequence('A', 0), { SpecialToken: { id: bos, type_id: 1 } }, sequence('B', 1)],
    special_tokens: { [bos]: { id: bos, ids: [id], tokens: [bos] } },
  }
}

function tokenList(json: TokenizerJson, vocabSize: number) {
  const tokens = Array.from({ length: vocabSize }, (_, id) => `[PAD${id}]`)
  const types = new Int32Array(vocabSize).fill(tokenType.unused)
  const vocab = (json.model as { vocab: Record<string, number> }).vocab
  const put = (id: number, content: string, type: number) => {
    tokens[id] = content
    types[id] = type
  }
  for (const [content, id] of Object.entries(vocab)) put(id, content, tokenType.normal)
  for (const token of (json.added_tokens ?? []) as { id: number; content: string; special: boolean }[]) {
    put(token.id, token.content, token.special ? tokenType.control : tokenType.userDefined)
  }
  return { tokens, types }
}

/** The name under which GGUF knows how this tokenizer cuts text into words. */
function namePreTokenizer(json: TokenizerJson): string {
  const splits = preTokenizerSplits(json)
  const { ignore_merges: ignoreMerges = false } = json.model as { ignore_merges?: boolean }
  const normalizers = flatten(json.normalizer as never).map((component) => component.type)
  const found = Object.entries(preTokenizers).find(
    ([, known]) =>
      JSON.stringify(known.splits) === JSON.stringify(splits) &&
      ignoreMerges === (known.ignoreMerges ?? false) &&
      normalizers.every((type) => type === known.normalizer),
  )
  if (found) return found[0]
  throw new SsrlError(
    'ERR_TOKENIZER',
    `This tokenizer is none that GGUF has a name for here (${Object.keys(preTokenizers).join(', ')}); export in Hugging Face layout instead`,
  )
}

function preTokenizerSplits(json: TokenizerJson): string[] | null {
  const components = flatten(json.pre_tokenizer as never)
  const last = components.at(-1)
  if (last?.type !== 'ByteLevel' || last.add_prefix_space) return null
  const splits = components.slice(0, -1).map((component) => {
    if (component.type === 'Digits') return component.individual_digits ? '\\p{N}' : '\\p{N}+'
    return component.type === 'Split' ? ((component.pattern as { Regex?: string }).Regex ?? null) : null
  })
  if (last.use_regex !== false) splits.push(gpt2Split)
  return splits.every((split) => split !== null) ? splits : null
}

function refuse(key: string, expected: string, value: unknown): never {
  throw new SsrlError(
    'ERR_MODEL_FORMAT',
    `Expected ${expected} for tokenizer.ggml.${key} in the GGUF file but received ${JSON.stringify(value) ?? 'nothing'}; put a tokenizer.json beside the file to use that instead`,
  )
}

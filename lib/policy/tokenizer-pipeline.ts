import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import { SsrlError } from '../errors.ts'
import { type AddedToken, AddedTokenSplitter, type Range } from './added-tokens.ts'

/** A tokenizer.json's object, or the same built from a GGUF. */
export type TokenizerJson = Record<string, unknown>
type Component = Record<string, unknown> & { type?: unknown }

const wholeText = (text: string): Range[] => [[0, text.length]]

/**
 * Text to ids: added tokens, normalizer, pre-tokenizer, BPE.
 * The components are those of @huggingface/tokenizers; the walk over added tokens is done here, since text that is not
 * trusted must not become one, and since the library ignores `single_word`.
 */
export class TokenizerPipeline {
  readonly addedTokens: readonly AddedToken[]
  readonly #library: HuggingFaceTokenizer
  readonly #addedIds: Set<number>
  readonly #raw: AddedTokenSplitter
  readonly #normalized: AddedTokenSplitter

  constructor(json: TokenizerJson) {
    checkComponents(json)
    this.addedTokens = readAddedTokens(json)
    this.#addedIds = new Set(this.addedTokens.map((token) => token.id))
    this.#library = openLibrary(json)
    const normalizer = this.#library.normalizer
    const found = this.addedTokens.filter((token) => token.normalized && normalizer)
    this.#raw = new AddedTokenSplitter(this.addedTokens.filter((token) => !found.includes(token)))
    this.#normalized = new AddedTokenSplitter(
      found,
      found.map((token) => normalizer!.normalize(token.content)),
    )
  }

  /** Tokens of the BPE vocabulary by id, added tokens aside; with holes. */
  get vocabulary(): readonly (string | undefined)[] {
    return this.#library.model!.vocab
  }

  /** The ids that the post-processor puts before and after a text. */
  specialTokens(): { prefix: number[]; suffix: number[] } {
    const text = '\0'
    const { tokens } = this.#library.post_processor?.post_process([text], null, true) ?? { tokens: [text] }
    const ids = (part: string[]) => part.map((token) => this.tokenId(token) ?? missingSpecial(token))
    const at = tokens.indexOf(text)
    return { prefix: ids(tokens.slice(0, at)), suffix: ids(tokens.slice(at + 1)) }
  }

  tokenId(content: string): number | undefined {
    return (
      this.addedTokens.find((token) => token.content === content)?.id ??
      this.#library.model!.tokens_to_ids.get(content)
    )
  }

  /** @param trusted ascending ranges in which added tokens are looked for; default: everywhere */
  encode(text: string, trusted: readonly Range[] = wholeText(text)): number[] {
    const ids: number[] = []
    for (const { start, end, id } of this.#raw.split(text, trusted)) {
      if (id !== undefined) ids.push(id)
      else this.#encodeSection(text.slice(start, end), start, clip(trusted, start, end), ids)
    }
    return ids
  }

  #encodeSection(section: string, offset: number, trusted: Range[], ids: number[]) {
    const { normalizer, pre_tokenizer: preTokenizer, model } = this.#library
    const text = normalizer ? normalizer.normalize(section) : section
    const isTrusted = trusted.length === 1 && trusted[0]![0] === 0 && trusted[0]![1] === section.length
    const allowed = this.#normalized.isEmpty ? [] : this.#mapRanges(section, text, trusted)
    for (const { start, end, id } of this.#normalized.split(text, allowed)) {
      if (id !== undefined) {
        ids.push(id)
        continue
      }
      const part = text.slice(start, end)
      // Metaspace's prepend_scheme 'first' asks whether this is the text's very beginning
      const options = { section_index: offset === 0 && start === 0 ? 0 : 1 }
      const words = preTokenizer ? preTokenizer.pre_tokenize(part, options) : [part]
      for (const token of model!._call(words)) this.#pushToken(token, isTrusted, ids)
    }
  }

  /** Trusted ranges of a section in its normalized form; none where the normalizer works across their borders. */
  #mapRanges(section: string, normalized: string, trusted: Range[]): Range[] {
    const normalizer = this.#library.normalizer!
    if (trusted.length === 1 && trusted[0]![1] - trusted[0]![0] === section.length)
      return wholeText(normalized)
    const position = (index: number) => {
      const prefix = index === 0 ? '' : normalizer.normalize(section.slice(0, index))
      return normalized.startsWith(prefix) ? prefix.length : undefined
    }
    const mapped = trusted.map(([start, end]) => [position(start), position(end)])
    return mapped.every(([start, end]) => start !== undefined && end !== undefined)
      ? (mapped as unknown as Range[])
      : []
  }

  /** A merge can spell an added token: in text that is not trusted it is taken apart again. */
  #pushToken(token: string, isTrusted: boolean, ids: number[]) {
    const { tokens_to_ids: idOf, unk_token_id: unknown } = this.#library.model!
    const id = idOf.get(token) ?? unknown
    if (id === undefined) return
    if (isTrusted || !this.#addedIds.has(id)) ids.push(id)
    else for (const char of token) ids.push(...this.#characterIds(char))
  }

  #characterIds(char: string): number[] {
    const idOf = this.#library.model!.tokens_to_ids
    const id = idOf.get(char)
    if (id !== undefined) return [id]
    const bytes = Array.from(new TextEncoder().encode(char), (byte) =>
      byte.toString(16).toUpperCase().padStart(2, '0'),
    )
    return bytes.flatMap((byte) => idOf.get(`<0x${byte}>`) ?? [])
  }
}

/** Larger ids than any vocabulary has would only ask for memory. */
function isTokenId(id: unknown): id is number {
  return Number.isInteger(id) && (id as number) >= 0 && (id as number) < 1 << 22
}

function clip(ranges: readonly Range[], start: number, end: number): Range[] {
  return ranges
    .map(([from, to]): Range => [Math.max(from, start) - start, Math.min(to, end) - start])
    .filter(([from, to]) => from < to)
}

function missingSpecial(token: string): never {
  throw new SsrlError(
    'ERR_TOKENIZER',
    `The tokenizer's post-processor adds ${token}, which its vocabulary lacks`,
  )
}

function readAddedTokens(json: TokenizerJson): AddedToken[] {
  const list = json.added_tokens ?? []
  if (!Array.isArray(list))
    throw new SsrlError('ERR_TOKENIZER', 'Expected a list for added_tokens in tokenizer.json')
  return list.map((entry: Record<string, unknown>) => {
    const { id, content } = entry ?? {}
    if (!isTokenId(id) || typeof content !== 'string') {
      throw new SsrlError(
        'ERR_TOKENIZER',
        `Expected id and content in every entry of added_tokens but received ${JSON.stringify(entry)}`,
      )
    }
    const special = entry.special === true
    return {
      id,
      content,
      special,
      normalized: typeof entry.normalized === 'boolean' ? entry.normalized : !special,
      lstrip: entry.lstrip === true,
      rstrip: entry.rstrip === true,
      singleWord: entry.single_word === true,
    }
  })
}

function openLibrary(json: TokenizerJson): HuggingFaceTokenizer {
  const components = { decoder: null, post_processor: null, pre_tokenizer: null, normalizer: null }
  try {
    const library = new HuggingFaceTokenizer(
      {
        ...components,
        ...json,
        // both are ours; given to the library, added tokens would enter its vocabulary
        added_tokens: [],
        decoder: null,
        pre_tokenizer: adaptPreTokenizer(json.pre_tokenizer as Component | null | undefined),
      },
      {},
    )
    return library
  } catch (cause) {
    throw new SsrlError('ERR_TOKENIZER', `tokenizer.json can't be used: ${(cause as Error).message}`, {
      cause,
    })
  }
}

const gpt2Pattern = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
const isolated = (pattern: string) => ({
  type: 'Split',
  pattern: { Regex: pattern },
  behavior: 'Isolated',
  invert: false,
})

/**
 * Replaces what the library computes differently from Hugging Face's own implementation by what it computes alike:
 * its Digits knows ASCII only, its ByteLevel takes U+FEFF for white space and U+0085 for none, its Metaspace never splits.
 */
function adaptPreTokenizer(component: Component | null | undefined): Component | null {
  if (!component) return null
  if (component.type === 'Sequence') {
    const list = (component.pretokenizers ?? []) as Component[]
    return { type: 'Sequence', pretokenizers: list.map(adaptPreTokenizer) }
  }
  if (component.type === 'Digits') return isolated(component.individual_digits ? '\\p{N}' : '\\p{N}+')
  if (component.type === 'ByteLevel' && component.use_regex !== false && !component.add_prefix_space) {
    return { type: 'Sequence', pretokenizers: [isolated(gpt2Pattern), { ...component, use_regex: false }] }
  }
  if (component.type === 'Metaspace') return adaptMetaspace(component)
  return component
}

function adaptMetaspace(component: Component): Component {
  const scheme = component.prepend_scheme ?? (component.add_prefix_space === false ? 'never' : 'always')
  const metaspace = { ...component, prepend_scheme: scheme }
  if (component.split === false) return metaspace
  const space = String(component.replacement ?? '▁')
  return { type: 'Sequence', pretokenizers: [metaspace, isolated(`${space}[^${space}]*|[^${space}]+`)] }
}

const knownComponents: Record<string, string[]> = {
  normalizer: [
    'Sequence',
    'NFC',
    'NFD',
    'NFKC',
    'NFKD',
    'Lowercase',
    'Prepend',
    'Replace',
    'Strip',
    'StripAccents',
  ],
  pre_tokenizer: ['Sequence', 'ByteLevel', 'Split', 'Digits', 'Metaspace', 'WhitespaceSplit'],
  post_processor: ['Sequence', 'ByteLevel', 'TemplateProcessing'],
  decoder: ['Sequence', 'ByteLevel', 'Metaspace', 'Replace', 'ByteFallback', 'Fuse', 'Strip'],
}

/** Refuses what the library does not do, or not as Hugging Face's own implementation does it. */
function checkComponents(json: TokenizerJson) {
  const model = json.model as Component | undefined
  const refuse = (what: string, expected: string, value: unknown): never => {
    throw new SsrlError(
      'ERR_TOKENIZER',
      `Expected ${expected} for ${what} in tokenizer.json but received ${JSON.stringify(value)}`,
    )
  }
  const hasVocab = typeof model === 'object' && model !== null && typeof model.vocab === 'object'
  if (!hasVocab || (model.type !== undefined && model.type !== 'BPE'))
    refuse('model.type', "'BPE'", model?.type)
  if (!Array.isArray(model!.merges)) refuse('model.merges', 'a list', model!.merges)
  const [bad] = Object.entries(model!.vocab as object).find(([, id]) => !isTokenId(id)) ?? []
  if (bad !== undefined)
    refuse(`model.vocab[${JSON.stringify(bad)}]`, 'a token id', (model!.vocab as never)[bad])
  for (const field of ['dropout', 'continuing_subword_prefix', 'end_of_word_suffix']) {
    if (model![field]) refuse(`model.${field}`, 'nothing', model![field])
  }
  for (const [name, known] of Object.entries(knownComponents)) {
    for (const component of flatten(json[name] as Component | null | undefined)) {
      if (!known.includes(component.type as string))
        refuse(name, `one of ${known.join(', ')}`, component.type)
      if (component.type !== 'Split') continue
      if (component.behavior !== 'Isolated' || component.invert === true) {
        refuse(`${name} Split`, "behavior 'Isolated', not inverted,", component.behavior)
      }
    }
  }
}

export function flatten(component: Component | null | undefined): Component[] {
  if (!component) return []
  if (component.type !== 'Sequence') return [component]
  const lists = [component.normalizers, component.pretokenizers, component.processors, component.decoders]
  return lists.flatMap((list) => (Array.isArray(list) ? (list as Component[]).flatMap(flatten) : []))
}

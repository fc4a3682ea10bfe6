/**
 * Documents are text from strangers. What is made of them here holds no tag and no control character, and is encoded so
 * that no added token of the vocabulary arises: it can't end its block, answer the question or begin a search.
 */
import type { TextSegment, Tokenizer } from '../policy/tokenizer.ts'
import type { SearchDocument } from './provider.ts'

/** What a tokenizer's normaliser (NFC, NFD, NFKC, NFKD) may turn into an angle bracket, the brackets themselves first. */
const opening = /[<\u226e\ufe64\uff1c]/gu
const closing = /[>\u226f\ufe65\uff1e]/gu
/** Invisible or unprintable: controls, format characters, lone surrogates, private use, what renderers ignore. */
const invisible = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Default_Ignorable_Code_Point}]/gu
/** Brackets that look like those of a tag, around the name of one: no tag to us, but a reader may take it for one. */
const lookAlike =
  /[\u02c2\u1438\u16b2\u2039\u2329\u276c\u276e\u2770\u27e8\u2991\u29fc\u3008\u300a](\s*[/\u2044\u2215\u29f8\uff0f]?\s*(?:think|search|information|answer)\s*)[\u02c3\u1433\u203a\u232a\u276d\u276f\u2771\u27e9\u2992\u29fd\u3009\u300b]/giu

/** Text without tags, control characters and runs of white space; newlines stay, one at a time. */
export function sanitizeText(text: string): string {
  return text
    .replace(/[\r\n\u0085\u2028\u2029]+/gu, '\n')
    .replace(/[^\S\n]+/gu, ' ')
    .replace(invisible, (found) => (found === '\n' ? '\n' : ''))
    .replace(lookAlike, '&lt;$1&gt;')
    .replace(opening, '&lt;')
    .replace(closing, '&gt;')
    .replace(/ *\n[ \n]*/gu, '\n')
    .trim()
}

/** Characters that are looked at for each token that may stay: longer tokens are rare, and 10 MB are not to be encoded. */
const charactersPerToken = 24

/**
 * The sanitised text, cut to at most `maxTokens` tokens on a border between two of them; a character that the border
 * cuts goes too.
 */
export function cutText(tokenizer: Tokenizer, text: string, maxTokens: number): string {
  const clean = sanitizeText(text.slice(0, maxTokens * charactersPerToken))
  const ids = encodeUntrusted(tokenizer, clean)
  if (ids.length <= maxTokens) return clean
  return tokenizer
    .decode(ids.subarray(0, maxTokens))
    .replace(/\ufffd+$/u, '')
    .trimEnd()
}

function encodeUntrusted(tokenizer: Tokenizer, text: string): Int32Array {
  return tokenizer.encodeSegments([{ text, untrusted: true }], { addSpecialTokens: false })
}

/**
 * How documents stand in their block. `numbered`: `Doc 1(Title: …) text`, a line each, empty lines around the block
 * (Search-R1). `plain`: the texts alone, a line each, nothing around: what a policy writes that was shown it so.
 */
export type DocumentLayout = 'numbered' | 'plain'

export interface BlockOptions {
  layout: DocumentLayout
  /** Tokens of one document at most. */
  maxDocumentTokens: number
  /** Tokens of the whole block at most. */
  maxTokens: number
  /** What the policy wrote behind `</search>` in the same token; where the block begins with it, it is not repeated. */
  overshoot: string
}

/**
 * Ids of an information block, tags included; null where not even an empty one fits. Of documents that don't fit the
 * last ones go first, then the end of the first.
 */
export function informationBlock(
  tokenizer: Tokenizer,
  documents: readonly SearchDocument[],
  options: BlockOptions,
): Int32Array | null {
  const { layout, maxDocumentTokens, maxTokens } = options
  let texts = documents.map((document, index) =>
    cutText(tokenizer, renderDocument(document, index, layout), maxDocumentTokens),
  )
  let limit = maxDocumentTokens
  for (;;) {
    const ids = encodeBlock(tokenizer, texts, options)
    if (ids.length <= maxTokens) return ids
    if (texts.length === 0) return null
    if (texts.length > 1) {
      texts = texts.slice(0, -1)
      continue
    }
    // Encoded on its own the text has about as many tokens as within the block; the frame costs the rest.
    limit = Math.min(limit - 1, limit - (ids.length - maxTokens))
    const shorter = limit > 0 ? cutText(tokenizer, renderDocument(documents[0]!, 0, layout), limit) : ''
    texts = shorter === '' ? [] : [shorter]
  }
}

/** One document as it stands in its block; `numbered`, it is what `parseDocuments` reads. */
export function renderDocument(
  { title, text }: SearchDocument,
  index: number,
  layout: DocumentLayout,
): string {
  if (layout === 'plain') return text
  return title === undefined ? `Doc ${index + 1}: ${text}` : `Doc ${index + 1}(Title: ${title}) ${text}`
}

function encodeBlock(
  tokenizer: Tokenizer,
  texts: readonly string[],
  { layout, overshoot }: BlockOptions,
): Int32Array {
  const isNumbered = layout === 'numbered'
  const before = continueAfter(overshoot, isNumbered ? '\n\n<information>' : '<information>')
  const after = isNumbered ? '\n</information>\n\n' : '</information>'
  const segments: TextSegment[] = [
    { text: before },
    { text: texts.filter(Boolean).join('\n'), untrusted: true },
    { text: after },
  ]
  return tokenizer.encodeSegments(segments, { addSpecialTokens: false })
}

/** The opener without what stands there already, as a token may hold `>` and a newline, or `>` and the next `<`. */
function continueAfter(overshoot: string, opener: string): string {
  if (opener.startsWith(overshoot)) return opener.slice(overshoot.length)
  const bare = opener.trimStart()
  const rest = overshoot.trimStart()
  return rest !== '' && bare.startsWith(rest) ? bare.slice(rest.length) : opener
}

/** The format score: how far a completion keeps to the tag grammar, in [0, 1]. */
import { isBlank, strip } from '../rewards/python-text.ts'
import { type ParsedCompletion, parseCompletion, type Tag, type TagName } from './grammar.ts'

/** `'reference'` reproduces the published rule, exploits included; `'strict'` is the same score on one grammar. */
export type FormatMode = 'strict' | 'reference'

const MAX_THINKS = 8
const PLACEHOLDERS: Record<TagName, string> = {
  think: 'your thoughts',
  search: 'your query',
  information: 'your information',
  answer: 'your answer',
}

/**
 * Scores a completion, given as text or as already parsed.
 *
 * `'strict'` (default): the stripped text must be `(think search information)* think answer` with only white space
 * between the blocks and none of the eight tags inside them; any other `<` is text. `'reference'`: the rule of the
 * SSRL reference code. In both no block may be blank or hold placeholder text, a query has one line, and with T thinks
 * and S searches the score is min(T/2, 1) · min(T, S+1)/max(T, S+1), or 0 when T > 8.
 */
export function formatScore(completion: string | ParsedCompletion, mode: FormatMode = 'strict'): number {
  if (mode === 'reference') {
    return referenceScore(typeof completion === 'string' ? completion : completion.text)
  }
  return strictScore(typeof completion === 'string' ? parseCompletion(completion) : completion)
}

function strictScore({ text, tags }: ParsedCompletion): number {
  const kinds: TagName[] = []
  let outside = 0
  for (let index = 0; index < tags.length; index += 2) {
    const opener = tags[index]!
    const closer = tags[index + 1]
    if (opener.closing || !closer?.closing || closer.name !== opener.name) return 0
    if (!isBlank(text.slice(outside, opener.start))) return 0
    if (!isContentAllowed(opener.name, text.slice(opener.end, closer.start))) return 0
    kinds.push(opener.name)
    outside = closer.end
  }
  if (!isBlank(text.slice(outside))) return 0
  return isStrictSequence(kinds) ? turnScore((kinds.length + 1) / 3, (kinds.length - 2) / 3) : 0
}

function isStrictSequence(kinds: TagName[]): boolean {
  if (kinds.length < 2 || (kinds.length - 2) % 3 !== 0) return false
  const cycle: TagName[] = ['think', 'search', 'information']
  return kinds.at(-1) === 'answer' && kinds.slice(0, -1).every((kind, index) => kind === cycle[index % 3])
}

function isContentAllowed(kind: TagName, content: string): boolean {
  if (isBlank(content)) return false
  if (kind === 'search' && content.includes('\n')) return false
  return !content.toLowerCase().includes(PLACEHOLDERS[kind])
}

function turnScore(thinks: number, searches: number): number {
  if (thinks > MAX_THINKS) return 0
  const ratio = Math.min(thinks, searches + 1) / Math.max(thinks, searches + 1)
  return Math.min(thinks / 2, 1) * ratio
}

function referenceScore(completion: string): number {
  const { text, tags } = parseCompletion(strip(completion))
  if (!hasOnlyKnownTags(text, tags)) return 0
  if (!text.startsWith('<think>') || !text.endsWith('</answer>')) return 0
  if (tags.length < 4) return 0
  const kinds: TagName[] = ['think', 'search', 'information', 'answer']
  if (!kinds.every((kind) => closedContents(tags, kind, text).every((part) => isContentAllowed(kind, part))))
    return 0
  if (!isPair(tags, 0, 'think') || !isPair(tags, tags.length - 2, 'answer')) return 0
  if (!isSearchAnswered(tags.slice(2, -2))) return 0
  const count = (kind: TagName) => tags.filter((tag) => tag.name === kind && !tag.closing).length
  if (count('search') !== count('information')) return 0
  return turnScore(count('think'), count('search'))
}

/** Every `<…>` of the text, from a `<` to the next `>` with something between, is one of the eight tags. */
function hasOnlyKnownTags(text: string, tags: Tag[]): boolean {
  const known = new Set(tags.map((tag) => tag.start))
  for (const match of text.matchAll(/<[^>]+>/g)) {
    if (!known.has(match.index)) return false
  }
  return true
}

function closedContents(tags: Tag[], kind: TagName, text: string): string[] {
  const contents: string[] = []
  let start = -1
  for (const tag of tags) {
    if (tag.name !== kind) continue
    if (!tag.closing && start < 0) start = tag.end
    if (!tag.closing || start < 0) continue
    contents.push(text.slice(start, tag.start))
    start = -1
  }
  return contents
}

function isPair(tags: Tag[], index: number, name: TagName): boolean {
  const [opener, closer] = [tags[index], tags[index + 1]]
  return opener?.name === name && !opener.closing && closer?.name === name && closer.closing
}

function isSearchAnswered(middle: Tag[]): boolean {
  for (let index = 0; index < middle.length; index++) {
    const tag = middle[index]!
    if (tag.name !== 'search' || tag.closing) continue
    if (!isPair(middle, index, 'search') || !isPair(middle, index + 2, 'information')) return false
    index += 3
  }
  return true
}

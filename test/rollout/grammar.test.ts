import test from 'ava'
import fc from 'fast-check'
import { strip } from '../../lib/rewards/python-text.ts'
import { type ParsedCompletion, parseCompletion, type Span, TagParser } from '../../lib/rollout/grammar.ts'
import { cutPoints, piecesAt, taggedText } from './token-pieces.ts'

function parsePieces(pieces: readonly string[]): ParsedCompletion {
  const parser = new TagParser()
  for (const piece of pieces) parser.push(piece)
  return parser.finish()
}

/** `kind:content` of each span, with `…` where it is not closed and `!` where it answers a search. */
function outline(text: string): string[] {
  const parsed = parseCompletion(text)
  return parsed.spans.map((span) => {
    const content = text.slice(span.contentStart, span.contentEnd)
    return `${span.kind}:${content}${span.closed ? '' : '…'}${span.answersSearch ? '!' : ''}`
  })
}

const outlines: [string, string, string[]][] = [
  [
    'a whole trajectory',
    '<think>t</think>\n<search>q</search>\n<information>i</information>\n<think>u</think><answer>a</answer>',
    ['think:t', 'search:q', 'information:i!', 'think:u', 'answer:a'],
  ],
  ['a text without tags', 'a < b > c', []],
  ['a block that is never closed runs to the end', '<think>t', ['think:t…']],
  ['an opener ends the block that is open', '<think>t<search>q</search>', ['think:t…', 'search:q']],
  ['an opener of the same kind starts anew', '<search>p<search>q</search>', ['search:p…', 'search:q']],
  ['a closer without its opener is text', '</think></information>x</search>', []],
  ['a closer of another kind closes nothing', '<think>a</search>b</think>', ['think:a</search>b']],
  [
    'tags inside information are content',
    '<search>q</search><information>a<information>b<answer>c</answer></information>d</information>',
    ['search:q', 'information:a<information>b<answer>c</answer>!'],
  ],
  [
    'a second block does not answer the search',
    '<search>q</search><information>a</information><information>b</information>',
    ['search:q', 'information:a!', 'information:b'],
  ],
  [
    'text between the search and the block breaks the tie',
    '<search>q</search> so <information>a</information>',
    ['search:q', 'information:a'],
  ],
  [
    'a stray tag between the search and the block breaks the tie',
    '<search>q</search></search><information>a</information>',
    ['search:q', 'information:a'],
  ],
  [
    'an unclosed search is not answered',
    '<search>q<information>a</information>',
    ['search:q…', 'information:a'],
  ],
  ['a closer alone is not a search', 'q</search><information>a</information>', ['information:a']],
  [
    'a search inside an unclosed think is answered',
    '<think>t<search>q</search>\n\n<information>a</information>',
    ['think:t…', 'search:q', 'information:a!'],
  ],
  [
    'an answering block that is never closed',
    '<search>q</search><information>a',
    ['search:q', 'information:a…!'],
  ],
  ['tags are matched exactly', '<Think>a</Think>< think><search >', []],
]
for (const [title, text, expected] of outlines) {
  test(title, (t) => t.deepEqual(outline(text), expected))
}

const answers: [string, string, string | null][] = [
  ['the last answer counts', '<answer>a</answer> <answer> b </answer>', 'b'],
  ['without an answer there is none', '<think>a</think>', null],
  ['an answer that is not closed is none', '<answer>a', null],
  ['a closer without an opener is no answer', 'a</answer>', null],
  ['an unclosed answer after a closed one does not count', '<answer>a</answer><answer>b', 'a'],
  [
    'an answer reaches from its first opener to the first closer',
    '<answer>a<answer>b</answer>c</answer>',
    'a<answer>b',
  ],
  ['an answer inside information counts', '<information><answer>a</answer></information>', 'a'],
  ['an answer keeps the tags inside', '<answer>a<think>b</think></answer>', 'a<think>b</think>'],
  ['an empty answer is empty', '<answer> \n</answer>', ''],
]
for (const [title, text, expected] of answers) {
  test(title, (t) => t.is(parseCompletion(text).answer, expected))
}

test('queries are the stripped contents of the closed searches', (t) => {
  const parsed = parseCompletion('<search> a </search><search>b<search>c\n</search><search>d')
  t.deepEqual(parsed.queries, ['a', 'c'])
  t.is(parsed.searchCount, 2)
})

test('reading stops when the answer tag is complete, in whatever pieces it comes', (t) => {
  const parser = new TagParser()
  for (const piece of ['<answer>x', '<', '/ans', 'wer']) {
    parser.push(piece)
    t.false(parser.stopped)
  }
  parser.push('>.')
  t.true(parser.stopped)
  t.is(parser.tokenCount, 5)
  t.is(parser.finish().text, '<answer>x</answer>.')
})

test('the open block is known while reading', (t) => {
  const parser = new TagParser()
  t.is(parser.openBlock, null)
  parser.push('<search>who')
  t.is(parser.openBlock, 'search')
  parser.push('</search>')
  t.is(parser.openBlock, null)
})

test('spans know their tokens when tags share tokens with text', (t) => {
  const parsed = parsePieces([
    'a<',
    'search',
    '>q</sea',
    'rch>',
    '\n<inf',
    'ormation>',
    'x',
    '</information',
    '>y',
    'z',
  ])
  t.deepEqual(
    parsed.spans.map(({ kind, tokenStart, tokenEnd }) => [kind, tokenStart, tokenEnd]),
    [
      ['search', 0, 4],
      ['information', 4, 9],
    ],
  )
  t.deepEqual([...parsed.tokenEnds], [2, 8, 15, 19, 24, 33, 34, 47, 49, 50])
})

test('a token that ends inside a character belongs to the block on both of its sides', (t) => {
  const bytes = new TextEncoder().encode('<search>q</search><information>文</information>文')
  const pieces = piecesAt('<search>q</search><information>文</information>文', [...bytes.keys()])
  const block = parsePieces(pieces).spans[1]!
  t.is(block.tokenEnd, bytes.length - 3 + 1)
  t.is(block.tokenEnd - block.tokenStart, 13 + 3 + 14)
})

test('an end token after an unclosed block belongs to it, after a closed one it does not', (t) => {
  t.is(parsePieces(['<information>', 'x', '']).spans[0]!.tokenEnd, 3)
  t.is(parsePieces(['<information>x', '</information>', '']).spans[0]!.tokenEnd, 2)
})

test('reading may go on after finish', (t) => {
  const parser = new TagParser()
  parser.push('<search>q</sea')
  t.false(parser.finish().spans[0]!.closed)
  parser.push('rch>')
  t.deepEqual(parser.finish().queries, ['q'])
})

test('a text without tokens is empty', (t) => {
  const parsed = new TagParser().finish()
  t.deepEqual([parsed.text, parsed.spans.length, parsed.tokenEnds.length, parsed.answer], ['', 0, 0, null])
})

function withoutTokens(parsed: ParsedCompletion): unknown {
  const { tokenEnds: _, spans, ...rest } = parsed
  return { ...rest, spans: spans.map(({ tokenStart: _start, tokenEnd: _end, ...span }) => span) }
}

test('every split of a text into tokens gives the same blocks, tags, queries and answer', (t) => {
  fc.assert(
    fc.property(taggedText, cutPoints, (text, cuts) => {
      t.deepEqual(withoutTokens(parsePieces(piecesAt(text, cuts))), withoutTokens(parsePieces([...text])))
    }),
    { numRuns: 500 },
  )
})

/** The tokens that share a byte with the characters of a span, straight from the definition. */
function tokensOfSpan(text: string, cuts: readonly number[], span: Span): number[] {
  const byteAt = (unit: number) => new TextEncoder().encode(text.slice(0, unit)).length
  const length = byteAt(text.length)
  const borders = [...new Set(cuts.map((cut) => cut % (length + 1)))].sort((a, b) => a - b)
  const runsToEnd = !span.closed && span.end === text.length
  const [start, end] = [byteAt(span.start), runsToEnd ? Number.POSITIVE_INFINITY : byteAt(span.end)]
  const ends = [...borders, length]
  return ends
    .map((to, token) => ({ token, from: token === 0 ? 0 : ends[token - 1]!, to }))
    .filter(({ from, to }) => from < end && to > start && from < to)
    .map(({ token }) => token)
}

test('the tokens of a block are those that share a byte with it, for every split', (t) => {
  fc.assert(
    fc.property(taggedText, cutPoints, (text, cuts) => {
      const length = new TextEncoder().encode(text).length
      const inner = cuts.map((cut) => cut % (length + 1)).filter((cut) => cut > 0 && cut < length)
      for (const span of parsePieces(piecesAt(text, inner)).spans) {
        const tokens = tokensOfSpan(text, inner, span)
        t.deepEqual([span.tokenStart, span.tokenEnd], [tokens[0], tokens.at(-1)! + 1])
      }
    }),
    { numRuns: 500 },
  )
})

test('blocks are in order, do not overlap, and lie inside the text', (t) => {
  fc.assert(
    fc.property(taggedText, (text) => {
      let before = 0
      for (const span of parseCompletion(text).spans) {
        t.true(before <= span.start && span.start < span.contentStart)
        t.true(span.contentStart <= span.contentEnd && span.contentEnd <= span.end && span.end <= text.length)
        before = span.end
      }
    }),
  )
})

test('the answer is what the published expression finds last', (t) => {
  fc.assert(
    fc.property(taggedText, (text) => {
      const found = [...text.matchAll(/<answer>([\s\S]*?)<\/answer>/g)].at(-1)?.[1]
      t.is(parseCompletion(text).answer, found === undefined ? null : strip(found))
    }),
  )
})

test('random text, lone surrogates included, never throws', (t) => {
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'binary' })), fc.array(fc.nat(0xffff)), (pieces, units) => {
      parsePieces([...pieces, String.fromCharCode(...units), '<', ...pieces])
    }),
  )
  t.pass()
})

test('4,096 tokens that all open a block are read in far less than a second', (t) => {
  const start = performance.now()
  t.is(parsePieces(new Array(4096).fill('<think>')).spans.length, 4096)
  t.is(parsePieces(new Array(4096).fill('<')).spans.length, 0)
  t.true(performance.now() - start < 500)
})

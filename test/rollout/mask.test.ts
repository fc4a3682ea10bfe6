import test from 'ava'
import fc from 'fast-check'
import { SsrlError } from '../../lib/errors.ts'
import { TagParser } from '../../lib/rollout/grammar.ts'
import { type InformationMask, informationWeights, lossMask, lossWeights } from '../../lib/rollout/mask.ts'
import { createTrajectory, TokenSource } from '../../lib/rollout/trajectory.ts'
import { cutPoints, piecesAt, taggedText } from './token-pieces.ts'

function weightsOf(pieces: readonly string[], mask?: InformationMask): Float32Array {
  const parser = new TagParser()
  for (const piece of pieces) parser.push(piece)
  return informationWeights(parser.finish().spans, pieces.length, mask)
}

/** The characters that are kept out when every character is a token, shown as `_`. */
function masked(text: string, mask?: InformationMask): string {
  const weights = weightsOf([...text], mask)
  return [...text].map((sign, index) => (weights[index] === 0 ? '_' : sign)).join('')
}

const I = '<information>'
const J = '</information>'
const hidden = (text: string) => '_'.repeat(text.length)

const cases: { title: string; text: string; information: string; all?: string }[] = [
  {
    title: 'a block directly after a closed search is masked, tags included',
    text: `<search>q</search>${I}a${J}b`,
    information: `<search>q</search>${hidden(`${I}a${J}`)}b`,
  },
  {
    title: 'white space between search and block is trained',
    text: `<search>q</search> \n${I}a${J}`,
    information: `<search>q</search> \n${hidden(`${I}a${J}`)}`,
  },
  {
    title: 'a block of several lines is masked whole',
    text: `<search>q</search>${I}\na\n\nb\n${J}\nc`,
    information: `<search>q</search>${hidden(`${I}.a..b.${J}`)}\nc`,
  },
  {
    title: 'each of several answered searches is masked',
    text: `<search>q</search>${I}a${J}x<search>r</search>${I}b${J}y`,
    information: `<search>q</search>${hidden(`${I}a${J}`)}x<search>r</search>${hidden(`${I}b${J}`)}y`,
  },
  {
    title: 'a block that is never closed is trained to the end',
    text: `<search>q</search>${I}a<answer>b</answer> c`,
    information: `<search>q</search>${I}a<answer>b</answer> c`,
    all: `<search>q</search>${hidden(`${I}a<answer>b</answer> c`)}`,
  },
  {
    title: 'an opener inside a block does not nest',
    text: `<search>q</search>${I}a${I}b${J}c${J}`,
    information: `<search>q</search>${hidden(`${I}a${I}b${J}`)}c${J}`,
  },
  {
    title: 'a closer without an opener masks nothing',
    text: `<search>q</search>a${J}b`,
    information: `<search>q</search>a${J}b`,
  },
  {
    title: 'a second block right after the first is trained',
    text: `<search>q</search>${I}a${J}${I}b${J}`,
    information: `<search>q</search>${hidden(`${I}a${J}`)}${I}b${J}`,
    all: `<search>q</search>${hidden(`${I}a${J}`)}${hidden(`${I}b${J}`)}`,
  },
  {
    title: 'a block without a search is trained',
    text: `<think>t</think>${I}a${J}`,
    information: `<think>t</think>${I}a${J}`,
    all: `<think>t</think>${hidden(`${I}a${J}`)}`,
  },
  {
    title: 'a block after a search that is not closed is trained',
    text: `<search>q${I}a${J}`,
    information: `<search>q${I}a${J}`,
    all: `<search>q${hidden(`${I}a${J}`)}`,
  },
  {
    title: 'a block after text after a search is trained',
    text: `<search>q</search>.${I}a${J}`,
    information: `<search>q</search>.${I}a${J}`,
    all: `<search>q</search>.${hidden(`${I}a${J}`)}`,
  },
  {
    title: 'a block that was opened elsewhere and never closed is trained',
    text: `t${I}a`,
    information: `t${I}a`,
    all: `t${hidden(`${I}a`)}`,
  },
]
for (const { title, text, information, all } of cases) {
  test(`information: ${title}`, (t) => t.is(masked(text), information))
  test(`all: ${all ? `masked all the same, although ${title}` : title}`, (t) =>
    t.is(masked(text, 'all'), all ?? information))
  test(`none: nothing is masked where ${title}`, (t) => t.is(masked(text, 'none'), text))
}

test('a token that holds the end of the tag and text after it is masked', (t) => {
  t.deepEqual(
    [...weightsOf(['<search>q</search>', '\n', I, 'a', '</information', '>x', 'y'])],
    [1, 1, 0, 0, 0, 0, 1],
  )
})

test('a token that holds text and the beginning of the tag is masked', (t) => {
  t.deepEqual([...weightsOf(['<search>q</search', '>\n<', 'information>', 'a', J, 'y'])], [1, 0, 0, 0, 0, 1])
})

test('a weight stands for the masked blocks', (t) => {
  t.deepEqual(
    [...weightsOf(['<search>q</search>', I, J, I, J, 'y'], { weight: 0.25 })],
    [1, 0.25, 0.25, 1, 1, 1],
  )
})

test('a weight of 0 is the default mask and a weight of 1 is none', (t) => {
  fc.assert(
    fc.property(taggedText, cutPoints, (text, cuts) => {
      const pieces = piecesAt(text, cuts)
      t.deepEqual(weightsOf(pieces, { weight: 0 }), weightsOf(pieces, 'information'))
      t.deepEqual(weightsOf(pieces, { weight: 1 }), weightsOf(pieces, 'none'))
    }),
  )
})

for (const mask of ['some', { weight: -1 }, { weight: Number.NaN }, {}, null, 3]) {
  test(`the mask ${JSON.stringify(mask)} is ERR_INVALID_CONFIG`, (t) => {
    const error = t.throws(() => informationWeights([], 1, mask as InformationMask), {
      instanceOf: SsrlError,
    })
    t.is(error.code, 'ERR_INVALID_CONFIG')
  })
}

test('for every split, a token is masked when one of its characters is with one-character tokens', (t) => {
  fc.assert(
    fc.property(taggedText, cutPoints, (text, cuts) => {
      const pieces = piecesAt(text, cuts)
      const weights = weightsOf(pieces)
      const perUnit = weightsOf([...Array(text.length).keys()].map((unit) => text.charAt(unit)))
      let from = 0
      for (const [token, piece] of pieces.entries()) {
        const part = perUnit.subarray(from, from + piece.length)
        if (piece !== '') t.is(weights[token], part.includes(0) ? 0 : 1)
        from += piece.length
      }
    }),
    { numRuns: 500 },
  )
})

function trajectoryOf(pieces: string[], source?: Uint8Array) {
  const count = pieces.length
  return createTrajectory({
    questionId: 'q',
    question: 'Who?',
    goldenAnswers: ['x'],
    promptTokens: Int32Array.of(1, 2, 3),
    completionTokens: new Int32Array(count),
    pieces,
    logProbs: new Float32Array(count).fill(-1),
    entropies: new Float32Array(count).fill(2),
    source,
    finishReason: 'stop',
  })
}

test('the loss weights of a trajectory leave out the prompt and are shifted by one token', (t) => {
  const trajectory = trajectoryOf(['<search>q</search>', I, J, '<answer>', 'x</answer>'])
  t.deepEqual([...lossWeights(trajectory)], [0, 0, 1, 0, 0, 1, 1])
  t.deepEqual([...lossMask(trajectory)], [0, 0, 1, 0, 0, 1, 1])
  t.deepEqual([...lossWeights(trajectory, { weight: 0.5 })], [0, 0, 1, 0.5, 0.5, 1, 1])
})

test('text from a real search is never trained on, whatever the mask', (t) => {
  const source = Uint8Array.from([1, 2, 2, 1, 1])
  const trajectory = trajectoryOf(['<search>q</search>', `${I}doc`, J, '<answer>', 'x</answer>'], source)
  for (const mask of ['information', 'all', 'none', { weight: 1 }] as InformationMask[]) {
    t.deepEqual([...lossMask(trajectory, mask)], [0, 0, 1, 0, 0, 1, 1])
  }
  t.is(source[1], TokenSource.search)
})

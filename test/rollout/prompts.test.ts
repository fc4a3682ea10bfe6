import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { SsrlError } from '../../lib/errors.ts'
import { loadPromptTemplate, promptTemplates, renderPrompt } from '../../lib/rollout/prompts.ts'

let folder: string
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ssrl-prompts-'))
})
test.after.always(() => rm(folder, { recursive: true }))

test('the self-search instruction comes in the order of the method and ends with the question', (t) => {
  const text = renderPrompt('Who was he?')
    .map((segment) => segment.text)
    .join('')
  const order = ['Answer the question', '<think>', '<search> query </search>', 'yourself', '<information>']
  const places = [
    ...order,
    'as often as',
    'one piece after the other',
    '<answer>',
    'Beijing',
    'Question: Who was he?',
  ]
  const found = places.map((part) => text.indexOf(part.replace('as often as', 'as many times as')))
  t.false(found.includes(-1))
  t.deepEqual(
    found,
    found.toSorted((a, b) => a - b),
  )
})

test('only the question is untrusted', (t) => {
  t.deepEqual(
    renderPrompt('<|im_end|>').map((segment) => [segment.untrusted, segment.text.includes('im_end')]),
    [
      [false, false],
      [true, true],
      [false, false],
    ],
  )
})

test('a question stands in the prompt as it is, whatever signs it has', (t) => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (question) => {
      const segments = renderPrompt(question)
      const text = segments.map((segment) => segment.text).join('')
      return text === promptTemplates['self-search'].split('{question}').join(question.trim())
    }),
    { examples: [['$&'], ['{question}'], ["$'x"], ['']] },
  )
  t.pass()
})

test('every built-in template has the question exactly once', async (t) => {
  for (const name of Object.keys(promptTemplates)) {
    const template = await loadPromptTemplate(name)
    t.is(template.text.split('{question}').length, 2, name)
    t.is(template.name, name)
  }
})

test('the bare question is a template too', (t) => {
  t.deepEqual(renderPrompt(' Who? ', 'question'), [{ text: 'Who?', untrusted: true }])
})

test("a user's own template is read from its file", async (t) => {
  const path = join(folder, 'own.txt')
  await writeFile(path, 'Q: {question}\nA:')
  const template = await loadPromptTemplate(path)
  t.deepEqual(template, { name: path, text: 'Q: {question}\nA:' })
  t.deepEqual(renderPrompt('x', template), [
    { text: 'Q: ', untrusted: false },
    { text: 'x', untrusted: true },
    { text: '\nA:', untrusted: false },
  ])
})

for (const [title, text] of [
  ['without {question}', 'no question'],
  ['with {question} twice', '{question} {question}'],
] as const) {
  test(`a template ${title} is ERR_INVALID_CONFIG`, async (t) => {
    const path = join(folder, `${title}.txt`)
    await writeFile(path, text)
    const error = await t.throwsAsync(() => loadPromptTemplate(path), { instanceOf: SsrlError })
    t.is(error.code, 'ERR_INVALID_CONFIG')
  })
}

test('a template that is neither a name nor a file is ERR_INVALID_CONFIG and lists the names', async (t) => {
  const error = await t.throwsAsync(() => loadPromptTemplate(join(folder, 'none')), { instanceOf: SsrlError })
  t.is(error.code, 'ERR_INVALID_CONFIG')
  t.true(error.message.includes('self-search-short'))
})

import test from 'ava'
import { createTrajectory } from '../../lib/rollout/trajectory.ts'
import { describeLabels } from '../../lib/training/pseudo-labels.ts'

function answering(group: number, answer: string | null, goldenAnswers: string[] = []) {
  const text = answer === null ? 'x' : `<answer>${answer}</answer>`
  return createTrajectory({
    questionId: String(group),
    question: '',
    goldenAnswers,
    group,
    promptTokens: Int32Array.of(1),
    completionTokens: Int32Array.of(2),
    pieces: [text],
    logProbs: Float32Array.of(0),
    entropies: Float32Array.of(0),
    finishReason: 'stop',
  })
}

const group = (index: number, answers: (string | null)[], golden?: string[]) =>
  answers.map((answer) => answering(index, answer, golden))

test('agreement is measured against golden answers: by label, and by reward', (t) => {
  const labels = describeLabels([
    // The label is right; the rewards are those of golden answers.
    ...group(0, ['Paris', 'paris', 'Rome', null], ['Paris']),
    // The label is wrong: three of four rewards are.
    ...group(1, ['Oslo', 'Oslo', 'Bergen', 'Turku'], ['Bergen']),
  ])
  t.is(labels.agreement, 0.5)
  t.is(labels.rewardAgreement, (1 + 1 / 4) / 2)
  t.is(labels.consensus, 0.5)
  t.is(labels.collapse, 0)
})

test('a group that agrees on a wrong answer has collapsed, one that agrees on the right one has not', (t) => {
  const wrong = group(0, ['Oslo', 'oslo'], ['Bergen'])
  const right = group(1, ['Bergen', 'Bergen'], ['Bergen'])
  t.is(describeLabels(wrong).collapse, 1)
  t.is(describeLabels(right).collapse, 0)
  t.is(describeLabels([...wrong, ...right]).collapse, 0.5)
  t.is(describeLabels([...wrong, ...right]).consensus, 1)
})

test('ties and groups without an answer are counted', (t) => {
  const labels = describeLabels([
    ...group(0, ['a b', 'c']),
    ...group(1, ['x', 'x']),
    ...group(2, [null, '!!!']),
    ...group(3, ['y', null]),
  ])
  t.is(labels.ties, 0.25)
  t.is(labels.unanswered, 0.25)
  t.is(labels.consensus, (1 / 2 + 1 + 0 + 1 / 2) / 4)
})

test('without golden answers nothing is said about them; groups that have some are measured alone', (t) => {
  const unknown = describeLabels(group(0, ['x', 'x']))
  t.deepEqual([unknown.agreement, unknown.rewardAgreement, unknown.collapse], [null, null, null])
  const mixed = describeLabels([...group(0, ['x', 'x']), ...group(1, ['y', 'y'], ['y'])])
  t.deepEqual([mixed.agreement, mixed.rewardAgreement, mixed.collapse], [1, 1, 0])
})

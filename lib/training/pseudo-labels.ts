/** What test-time RL without labels (TTRL, arXiv 2504.16084) makes of a step: its labels, and where they lead. */
import { mean } from '../mean.ts'
import { exactMatchScore } from '../rewards/answers.ts'
import { majority, type Vote } from '../rewards/majority.ts'
import { normalizeAnswer } from '../rewards/normalize.ts'
import type { Trajectory } from '../rollout/trajectory.ts'

/** Over the groups of a step; what needs golden answers is over groups that have some, null without any. */
export interface PseudoLabels {
  /** Share of groups whose label shares its votes with another answer. */
  ties: number
  /** Share of groups without any answer, and so without a label. */
  unanswered: number
  /** Mean share of a group's trajectories that gave the label; 1 where all agree. */
  consensus: number
  /** Share of groups whose label is a golden answer. */
  agreement: number | null
  /** Share of trajectories whose reward is what golden answers would have given. */
  rewardAgreement: number | null
  /** Share of groups that agree to the last trajectory on a wrong answer: nothing can lead them back. */
  collapse: number | null
}

interface Group {
  members: Trajectory[]
  vote: Vote | null
  golden: string[]
}

export function describeLabels(trajectories: readonly Trajectory[]): PseudoLabels {
  const groups = toGroups(trajectories)
  const known = groups.filter(({ golden }) => golden.length > 0)
  const ofKnown = (value: (group: Group) => number) => (known.length === 0 ? null : mean(known.map(value)))
  const ofAll = (value: (group: Group) => number) => mean(groups.map(value))
  return {
    ties: ofAll(({ vote }) => Number(vote?.tied ?? false)),
    unanswered: ofAll(({ vote }) => Number(vote === null)),
    consensus: ofAll(consensus),
    agreement: ofKnown((group) => Number(isRight(group, group.vote?.answer ?? ''))),
    rewardAgreement: ofKnown((group) => mean(group.members.map((member) => rewardAgrees(group, member)))),
    collapse: ofKnown((group) => Number(consensus(group) === 1 && !isRight(group, group.vote?.answer ?? ''))),
  }
}

function toGroups(trajectories: readonly Trajectory[]): Group[] {
  const groups = new Map<number, Trajectory[]>()
  for (const trajectory of trajectories) {
    const members = groups.get(trajectory.group)
    if (members) members.push(trajectory)
    else groups.set(trajectory.group, [trajectory])
  }
  return [...groups.values()].map((members) => ({
    members,
    vote: majority(members.map(({ prediction }) => prediction ?? '')),
    golden: members[0]!.goldenAnswers.filter((answer) => normalizeAnswer(answer) !== ''),
  }))
}

const consensus = ({ members, vote }: Group) => (vote?.count ?? 0) / members.length

const isRight = ({ golden }: Group, answer: string) =>
  normalizeAnswer(answer) !== '' && exactMatchScore(answer, golden) === 1

function rewardAgrees(group: Group, { prediction }: Trajectory): number {
  const answer = normalizeAnswer(prediction ?? '')
  const rewarded = answer !== '' && answer === group.vote?.answer
  return Number(rewarded === isRight(group, answer))
}

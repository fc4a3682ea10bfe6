import { mean } from '../mean.ts'
import type { Trajectory } from '../rollout/trajectory.ts'

/** What became of a step's searches; there only where some may be answered from outside. */
export interface SearchStatistics {
  /** Closed searches that had a query. */
  asked: number
  /** Answered by the policy as scheduled, by documents, by nobody since the provider failed. */
  self: number
  documents: number
  failures: number
  /** Searches without a query, and other actions that were none. */
  blank: number
  invalidActions: number
  /** How many answers each provider gave, failures aside. */
  providers: Record<string, number>
  cacheHits: number
  /** Tokens of documents, frames and messages that were put into the completions. */
  tokens: number
}

/** Milliseconds that searches outside took, from the question to the answer. */
export interface SearchLatency {
  mean: number
  max: number
}

export function describeSearches(trajectories: readonly Trajectory[]): {
  search: SearchStatistics
  searchLatency: SearchLatency
} {
  const searches = trajectories.flatMap((trajectory) => trajectory.searches)
  const count = (outcome: string) => searches.filter((search) => search.outcome === outcome).length
  const outside = searches.filter(({ provider }) => provider !== null)
  const providers: Record<string, number> = {}
  for (const { provider, outcome } of outside) {
    if (outcome === 'documents') providers[provider!] = (providers[provider!] ?? 0) + 1
  }
  const latencies = outside.map(({ latency }) => latency)
  return {
    search: {
      asked: searches.length - count('blank'),
      self: count('self'),
      documents: count('documents'),
      failures: count('failure'),
      blank: count('blank'),
      invalidActions: trajectories.reduce((sum, { invalidActions }) => sum + invalidActions, 0),
      providers,
      cacheHits: searches.filter(({ cached }) => cached).length,
      tokens: searches.reduce((sum, { tokens }) => sum + tokens, 0),
    },
    searchLatency: {
      mean: latencies.length === 0 ? 0 : mean(latencies),
      max: latencies.reduce((most, latency) => Math.max(most, latency), 0),
    },
  }
}

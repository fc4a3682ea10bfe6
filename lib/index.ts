/// <reference lib="esnext.disposable" preserve="true" />
/** The public surface: what is not exported here is not public. */

export { fromBfloat16, toBfloat16 } from './bfloat16.ts'
export {
  type ChatMessage,
  type Example,
  type ExampleReport,
  type LoadExamplesOptions,
  loadExamples,
} from './data/examples.ts'
export { sharedQuestions } from './data/overlap.ts'
export {
  type LoadQuestionsOptions,
  loadQuestions,
  loadQuestionsWithReport,
  type Question,
  type QuestionIssue,
  type QuestionIssueKind,
  type QuestionReport,
} from './data/questions.ts'
export { SsrlError, type SsrlErrorCode } from './errors.ts'
export type { Endpoint } from './evaluation/endpoint.ts'
export {
  type EvaluateOptions,
  type EvaluationReport,
  type EvaluationScores,
  evaluate,
  type Prediction,
} from './evaluation/evaluate.ts'
export type { MethodName, Shot } from './evaluation/methods.ts'
export { type CompletionScore, type ScoreOptions, scoreCompletion, scoreFiles } from './evaluation/score.ts'
export { majorityAtK, passAtK } from './evaluation/statistics.ts'
export type { BenchmarkSummary, Metric, Scores, Summary } from './evaluation/summary.ts'
export * from './kernels.ts'
export type { DType, NativeGeneratorStatistics as GeneratorStatistics } from './native.ts'
export {
  type ChatOptions,
  defaultTemplateVariables,
  encodePrompt,
  type Message,
  renderChat,
  type TemplateVariables,
} from './policy/chat-template.ts'
export type { Completion, TokenEvent } from './policy/completion.ts'
export type { DeviceChoice, DeviceName } from './policy/device.ts'
export { exportGguf, type GgufDtype, type GgufExport, type GgufOptions } from './policy/export.ts'
export type { HubProgress } from './policy/hub.ts'
export type { DeviceOptions, LoadOptions, LoadProgress } from './policy/load.ts'
export {
  type Architecture,
  type ModelConfig,
  parseModelConfig,
  type RopeScaling,
} from './policy/model-config.ts'
export { type GenerateOptions, type InitializeOptions, Policy, type SaveOptions } from './policy/policy.ts'
export type { GenerateRequest } from './policy/requests.ts'
export type { SamplingOptions } from './policy/sampling.ts'
export { Session, type SessionGenerateOptions } from './policy/session.ts'
export { type EncodeOptions, type TextSegment, Tokenizer } from './policy/tokenizer.ts'
export {
  type ComposedReward,
  coverExactMatchScore,
  type DefaultRewardOptions,
  exactMatchScore,
  f1Score,
  majorityAnswer,
  normalizeAnswer,
  type RewardBreakdown,
  type RewardContext,
  type RewardFunction,
  type RewardPart,
  rewards,
  runReward,
} from './rewards/index.ts'
export { type FormatMode, formatScore } from './rollout/format.ts'
export {
  type ParsedCompletion,
  parseCompletion,
  type Span,
  type Tag,
  type TagName,
  TagParser,
} from './rollout/grammar.ts'
export { type InformationMask, informationWeights, lossMask, lossWeights } from './rollout/mask.ts'
export {
  loadPromptTemplate,
  type PromptSegment,
  type PromptTemplate,
  type PromptTemplateName,
  promptTemplates,
  renderPrompt,
} from './rollout/prompts.ts'
export {
  createSearch,
  type FailurePolicy,
  type Search,
  type SearchOptions,
  type SearchRecord,
} from './rollout/search.ts'
export { type SelfSearchOptions, selfSearch, selfSearchAll } from './rollout/self-search.ts'
export {
  createTrajectory,
  type FinishReason,
  TokenSource,
  type Trajectory,
  type TrajectoryInput,
  type TrajectoryRecord,
  trajectoryRecord,
} from './rollout/trajectory.ts'
export { type CacheOptions, cacheProvider } from './search/cache.ts'
export { type CreateProviderOptions, createProvider } from './search/create-provider.ts'
export { type DeskOptions, SearchDesk } from './search/desk.ts'
export { type HttpProviderOptions, httpProvider } from './search/http.ts'
export { localProvider } from './search/local.ts'
export {
  type BuildIndexOptions,
  buildIndex,
  LocalIndex,
  type Passage,
  type ReadCorpusOptions,
  readCorpus,
} from './search/local-index.ts'
export { type OpenaiProviderOptions, openaiProvider } from './search/openai.ts'
export {
  type PolicyProviderOptions,
  policyProvider,
  type SimulatedQuery,
  simulatorPrompt,
} from './search/policy.ts'
export {
  RetryableSearchError,
  type SearchContext,
  type SearchDocument,
  type SearchFailure,
  type SearchOrigin,
  type SearchProvider,
  type SearchResult,
  selfProvider,
} from './search/provider.ts'
export { retrieveApp } from './search/retrieve-app.ts'
export { type DocumentLayout, sanitizeText } from './search/sanitize.ts'
export { createSchedule, type Schedule, type ScheduledSearch, type ScheduleName } from './search/schedule.ts'
export { searxngProvider, serperProvider } from './search/web.ts'
export { type ListenOptions, listen, type RunningServer } from './serve/listen.ts'
export { type ServeOptions, serveApp } from './serve/serve-app.ts'
export { type Algorithm, algorithms } from './training/algorithms.ts'
export {
  type BootstrapOptions,
  type BootstrapShot,
  type BootstrapStatistics,
  bootstrapFromSamples,
  bootstrapFromTemplate,
  type Demonstration,
} from './training/bootstrap.ts'
export {
  bootstrapFromSearches,
  type SearchedBootstrapOptions,
  type SearchedBootstrapStatistics,
} from './training/bootstrap-searches.ts'
export type { Config, SettingName } from './training/config.ts'
export type { PartialConfig } from './training/config-parse.ts'
export {
  Learner,
  type LearnerBatch,
  type LearnerOptions,
  type LossOptions,
  type LossStatistics,
  type LossType,
} from './training/learner.ts'
export type { RewardOption } from './training/rollout-step.ts'
export {
  type SFTResumeOptions,
  type SFTScores,
  type SFTStepRecord,
  SFTTrainer,
  type SFTTrainerOptions,
} from './training/sft-trainer.ts'
export {
  type SimulatorDataOptions,
  type SimulatorExample,
  type SimulatorStatistics,
  simulatorExamples,
} from './training/simulator-data.ts'
export { type SSRLResumeOptions, SSRLTrainer, type SSRLTrainerOptions } from './training/ssrl-trainer.ts'
export { type StepRecord, withoutTimes } from './training/step-record.ts'

"""The words of alarms, a table for each language: keys and placeholders are the same in all."""

from collections.abc import Mapping

EN: Mapping[str, str] = {
    "model": "{asset} behaves unlike its normal running",
    "rule": "{asset} breaks a rule",
    "data_gap": "{asset} gives no data",
    "bad_status": "{asset} gives values that their source calls bad",
    "stuck": "{asset} has a value that does not move",
    "range": "{asset} has a value out of its range",
    "rate": "{asset} has a value that changes faster than it can",
    "spikes": "{asset} has a value with lone spikes",
    "saturated": "{asset} has a value that is cut off at the end of its range",
    "sample_rate": "{asset} gives samples too fast or too slowly",
    "clock": "{asset} has a clock that went back or was set",
    "held_back": "{asset} gives values that cannot be trusted, too many for the model to judge",
    "drift": "{asset} drifts away from its normal running",
    "degradation": "{asset} is wearing",
    "other": "{asset} is in alarm ({cause})",
    "with_rule": "{says}, {rule}",
    "with_parts": "{says}: {parts}",
    "between_parts": ", ",
    "more": "{count} more",
    "share": "{channel} ({share} %)",
    "expected": "{seen} where {expected} was expected",
    "process_ends": "{asset} runs as normal again",
    "drift_ends": "{asset} runs as normal again",
    "sensor_ends": "{asset} gives values that can be trusted again",
    "comms_ends": "{asset} gives its samples as it should again",
    "shelve": "{alarm} is shelved by {by}",
    "suppress": "{alarm} is suppressed by {by}",
    "suppressor on": "{alarm} is suppressed by {by}",
    "out_of_service": "{alarm} is taken out of service by {by}",
    "retire": "{asset} is no longer watched",
    "retire_comment": "it was taken out of the configuration",
    "flood": "{count} new alarms within {seconds} s at {assets}; the first is {alarm}",
    "flood_ends": "the flood of {count} alarms is over",
}
ZH: Mapping[str, str] = {
    "model": "{asset} 的运行状态偏离正常",
    "rule": "{asset} 违反规则",
    "data_gap": "{asset} 无数据",
    "bad_status": "{asset} 的数值被数据源标记为坏值",
    "stuck": "{asset} 有数值停滞不变",
    "range": "{asset} 有数值超出量程",
    "rate": "{asset} 有数值变化过快，超出物理可能",
    "spikes": "{asset} 有数值出现孤立尖峰",
    "saturated": "{asset} 有数值在量程末端被截断",
    "sample_rate": "{asset} 的采样过快或过慢",
    "clock": "{asset} 的时钟倒退或被重设",
    "held_back": "{asset} 的不可信数值过多，模型无法判断",
    "drift": "{asset} 正逐渐偏离正常运行",
    "degradation": "{asset} 正在劣化",
    "other": "{asset} 报警（{cause}）",
    "with_rule": "{says}（{rule}）",
    "with_parts": "{says}：{parts}",
    "between_parts": "；",
    "more": "另有 {count} 个",
    "share": "{channel}（{share} %）",
    "expected": "{seen}，预期 {expected}",
    "process_ends": "{asset} 已恢复正常运行",
    "drift_ends": "{asset} 已恢复正常运行",
    "sensor_ends": "{asset} 的数值恢复可信",
    "comms_ends": "{asset} 的数据恢复正常",
    "shelve": "{alarm} 已被 {by} 搁置",
    "suppress": "{alarm} 已被 {by} 抑制",
    "suppressor on": "{alarm} 已被 {by} 抑制",
    "out_of_service": "{alarm} 已被 {by} 停用",
    "retire": "{asset} 不再被监视",
    "retire_comment": "已从配置中移除",
    "flood": "{seconds} 秒内新增 {count} 个报警，涉及 {assets}；首个报警：{alarm}",
    "flood_ends": "报警泛滥结束，共 {count} 个报警",
}
LANGUAGES: Mapping[str, Mapping[str, str]] = {"en": EN, "zh": ZH}


def say(language: str, key: str, **values: object) -> str:
    """A sentence, or a part of one.

    >>> say("en", "retire", asset="pump-1"), say("zh", "retire", asset="pump-1")
    ('pump-1 is no longer watched', 'pump-1 不再被监视')
    """
    return LANGUAGES[language][key].format(**values)

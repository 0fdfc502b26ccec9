"""What the bot says, in English and in Russian. Same keys in both (a test holds it)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EN: Final[Mapping[str, str]] = {
    "help": (
        "/join NOTE: ask for access\n/subscription: your link\n/device NAME: a link for one more"
        " device\n/lost NUMBER: replace a lost link\n/status: usage and devices\n/alerts on, off"
    ),
    "operator-help": "\n\nOperator: /requests, /approve CODE, /deny CODE, /nodes",
    "private": "Write to me in private, please.",
    "asked": "Your request is {code}. You will hear from me here.",
    "asked-already": "Your request {code} is waiting.",
    "busy": "Too many requests are waiting; try again tomorrow.",
    "member-already": "You have access already: /subscription",
    "stranger": "You have no access yet: /join",
    "approved": "You have access: /subscription",
    "denied": "Your request was declined.",
    "link": "Device {number}:\n{url}\nOpen it in a browser, or import it in your app. Tell nobody.",
    "link-once": "A link is shown once. Lost it? /lost NUMBER",
    "replaced": "The old link of device {number} is worthless now.",
    "which": "Which device? /lost NUMBER, see /status",
    "no-cell": "No servers yet. Try again later.",
    "status": "{state}. Used {used} of {quota}. Valid until {until}. Devices {count} of {most}.",
    "device": "{number}. {label} ({standing}), last refresh {fetched}",
    "unlimited": "no limit",
    "ever": "no end",
    "never": "never",
    "active": "Active",
    "expired": "Expired",
    "over-quota": "Quota used up",
    "suspended": "Suspended",
    "revoked": "No longer valid",
    "alerts-on": "You will hear from me when your service changes.",
    "alerts-off": "I will keep quiet.",
    "changed": "Your service: {state}.",
    "no-requests": "Nobody is waiting.",
    "request": "{code}: {note}",
    "new-request": "Somebody asks for access: {code}: {note}",
    "no-such-request": "No request {code}.",
    "done": "Done.",
    "cell": "{cell}: {state}, {verdict}, {entries} entries, {cores} cores, {devices} devices",
    "no-cells": "No cells yet.",
    "cell-changed": "Cell {cell}: {verdict}",
    "alert": "{severity}: {subject} {what}\nNext: {step}",
    "away": "Headquarters does not answer; try again in a minute.",
    "refused": "That did not work: {why}",
}
RU: Final[Mapping[str, str]] = {
    "help": (
        "/join ЗАМЕТКА: попросить доступ\n/subscription: ваша ссылка\n/device ИМЯ: ссылка для ещё"
        " одного устройства\n/lost НОМЕР: заменить потерянную ссылку\n/status: расход и"
        " устройства\n/alerts on, off"
    ),
    "operator-help": "\n\nОператору: /requests, /approve КОД, /deny КОД, /nodes",
    "private": "Напишите мне лично, пожалуйста.",
    "asked": "Ваша заявка: {code}. Ответ придёт сюда.",
    "asked-already": "Ваша заявка {code} ждёт ответа.",
    "busy": "Слишком много заявок; попробуйте завтра.",
    "member-already": "Доступ у вас уже есть: /subscription",
    "stranger": "У вас ещё нет доступа: /join",
    "approved": "Доступ открыт: /subscription",
    "denied": "Заявка отклонена.",
    "link": (
        "Устройство {number}:\n{url}\nОткройте в браузере или добавьте в приложение. Никому не"
        " показывайте."
    ),
    "link-once": "Ссылка показывается один раз. Потеряли? /lost НОМЕР",
    "replaced": "Старая ссылка устройства {number} больше не действует.",
    "which": "Какое устройство? /lost НОМЕР, смотрите /status",
    "no-cell": "Серверов пока нет. Попробуйте позже.",
    "status": (
        "{state}. Использовано {used} из {quota}. Действует до: {until}. Устройств: {count} из"
        " {most}."
    ),
    "device": "{number}. {label} ({standing}), последнее обновление: {fetched}",
    "unlimited": "без ограничения",
    "ever": "бессрочно",
    "never": "не было",
    "active": "Активна",
    "expired": "Срок истёк",
    "over-quota": "Лимит исчерпан",
    "suspended": "Приостановлена",
    "revoked": "Больше не действует",
    "alerts-on": "Сообщу, когда что-то изменится.",
    "alerts-off": "Буду молчать.",
    "changed": "Ваша подписка: {state}.",
    "no-requests": "Заявок нет.",
    "request": "{code}: {note}",
    "new-request": "Новая заявка: {code}: {note}",
    "no-such-request": "Заявки {code} нет.",
    "done": "Готово.",
    "cell": "{cell}: {state}, {verdict}, входов {entries}, ядер {cores}, устройств {devices}",
    "no-cells": "Ячеек пока нет.",
    "cell-changed": "Ячейка {cell}: {verdict}",
    "alert": "{severity}: {subject} {what}\nДальше: {step}",
    "away": "Штаб не отвечает; попробуйте через минуту.",
    "refused": "Не получилось: {why}",
}


def say(language: str, key: str, **values: object) -> str:
    """A sentence in the language of a Telegram `language_code`; English for any but Russian."""
    words = RU if language.lower().startswith("ru") else EN
    return words[key].format(**values)

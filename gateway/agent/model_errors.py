"""What can go wrong on the model's side.

ModelError
├── ModelUnreachable      no connection
├── ModelSilent           a connection, and no answer in time
├── ModelServerFault      5xx, 408, 409, or an error in the middle of a stream
├── RateLimited           429
├── BrokenReply           the stream ended or broke before it was complete
├── GarbledReply          what came back is not a chat completion
├── EmptyReply            complete, and nothing in it
├── ContextTooLong        the conversation does not fit
├── ContentRefused        the provider's content rules
├── BadRequest            any other 400 or 422
├── QuotaExhausted        402, insufficient_quota
└── ModelMisconfigured    401, 403, 404: key, model name or address
"""


class ModelError(Exception):
    """A model gave no answer. `str()` is for the log; it holds no secret.

    `public` is what the person is told. `health` is one sentence for the operator when the defect is
    lasting (it turns `/readyz` red), else None. `retry`: another try may help. `retry_after`: seconds the
    server asked us to wait, if it did.
    """

    default_public = "The AI model could not answer. Please try again."
    retry = False
    tries = 1  # how often it was tried before it was raised

    def __init__(
        self,
        detail: str,
        *,
        public: str | None = None,
        health: str | None = None,
        retry: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.public = public or self.default_public
        self.health = health
        self.retry_after = retry_after
        if retry is not None:
            self.retry = retry


class ModelUnreachable(ModelError):
    default_public = "The AI model can't be reached at the moment. Please try again a little later."
    retry = True


class ModelSilent(ModelError):
    default_public = "The AI model took too long to answer. Please try again."
    retry = True


class ModelServerFault(ModelError):
    default_public = "The AI model's server has a problem at the moment. Please try again a little later."
    retry = True


class RateLimited(ModelError):
    default_public = "The AI model has too much to do at the moment. Please try again in a minute."
    retry = True


class BrokenReply(ModelError):
    default_public = "The connection to the AI model broke before it answered. Please try again."
    retry = True


class GarbledReply(ModelError):
    default_public = "The AI model's answer could not be read. Please try again."
    retry = True


class EmptyReply(ModelError):
    default_public = "The AI model gave an empty answer. Please ask again, perhaps in other words."


class ContextTooLong(ModelError):
    default_public = "This conversation is too long for the AI model. Send /new to begin a new one."


class ContentRefused(ModelError):
    default_public = "The AI model's provider refused this under its content rules. Please ask differently."


class BadRequest(ModelError):
    default_public = (
        "The AI model did not accept this request. Please ask differently, or send /new to begin anew."
    )


class QuotaExhausted(ModelError):
    default_public = "The AI model's quota is used up. Whoever runs this assistant has to see to it."


class ModelMisconfigured(ModelError):
    default_public = "The AI model is not set up correctly. Whoever runs this assistant has to see to it."

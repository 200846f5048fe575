// backoff

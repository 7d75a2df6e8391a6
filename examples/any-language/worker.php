<?php
// A worker in PHP, without extensions: each line on standard input is a piece of the task's answer.
//
//     php worker.php TASK
//
// Every request has a number, so one that isn't answered is sent again, and counts once. Each answer says whether the
// task was cancelled meanwhile.

[, $taskId] = $argv;
$url = (getenv('BRIDGE_URL') ?: 'http://127.0.0.1:8620') . "/tasks/$taskId";
$attempt = bin2hex(random_bytes(8));
$pause = (int) (1_000_000 * (float) (getenv('AGAIN_SECONDS') ?: 1));
$batch = 0;

/** Send a request until it is answered. */
function post(string $path, array $content): array
{
    global $url, $attempt, $batch, $pause;
    $batch += 1;
    $options = ['http' => [
        'method' => 'POST',
        'header' => ['Authorization: Bearer ' . getenv('BRIDGE_REPORT_KEY'), 'Content-Type: application/json'],
        'content' => json_encode($content, JSON_THROW_ON_ERROR),
        'ignore_errors' => true, // errors have a body, too
        'timeout' => 30,
    ]];
    while (true) {
        $where = "$url/$path?attempt=$attempt&batch=$batch&lease=30";
        $body = @file_get_contents($where, false, stream_context_create($options));
        $status = $body === false ? 0 : (int) explode(' ', $http_response_header[0])[1];
        if (!in_array($status, [0, 408, 429, 503], true)) {
            return json_decode($body, true, 512, JSON_THROW_ON_ERROR);
        }
        usleep($pause);
    }
}

$answer = post('events', []); // the task begins
while (!isset($answer['error']) && !$answer['cancel_requested'] && ($line = fgets(STDIN)) !== false) {
    $answer = post('events', ['kind' => 'chunk', 'text' => $line]);
}
if (isset($answer['error']) && !$answer['cancel_requested']) {
    fwrite(STDERR, $answer['error']['message'] . "\n");
    exit(1);
}
$answer = post('end', ['state' => $answer['cancel_requested'] ? 'cancelled' : 'succeeded']);
echo $answer['error']['message'] ?? $answer['state'], "\n";
